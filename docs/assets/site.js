// Names and keys for screen readers and keyboards, which the theme leaves out.
const name = (selector, text) =>
  document.querySelectorAll(selector).forEach((node) => node.setAttribute("aria-label", text));

document.addEventListener("DOMContentLoaded", () => {
  name("#__search", "Search");
  name("#__drawer", "Navigation");
  name(".md-search[role=dialog]", "Search");
  document.querySelectorAll(".md-typeset pre > code, .md-typeset__scrollwrap, .output").forEach((node) => {
    node.tabIndex = 0;  // what scrolls can be scrolled by keys
  });
  let count = 0;
  const number = () =>
    document.querySelectorAll(".md-code__nav:not([aria-label])").forEach((node) => {
      node.setAttribute("aria-label", `Code block ${++count}`);
    });
  new MutationObserver(number).observe(document.body, { childList: true, subtree: true });
  number();
});
