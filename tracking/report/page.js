// Links unfold what they lead to; legend buttons hide and show an optimizer in every plot; a tooltip
// shows the point nearest to the pointer, or, with the arrow keys, one point of a line after the other.
// Without this script all of the page can be read.
(() => {
  const folds = [...document.querySelectorAll("details")];
  const unfold = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const fold = target && target.querySelector(":scope > details");
    if (fold) { fold.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", unfold);
  unfold();
  for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", () => setTimeout(unfold));
  const nav = document.querySelector("nav");
  if (nav) {
    const all = nav.appendChild(document.createElement("button"));
    const label = () => { all.textContent = folds.every(fold => fold.open) ? "Fold all" : "Unfold all"; };
    all.type = "button";
    all.id = "open-all";
    all.addEventListener("click", () => {
      const open = !folds.every(fold => fold.open);
      for (const fold of folds) fold.open = open;
    });
    for (const fold of folds) fold.addEventListener("toggle", label);
    label();
  }
  addEventListener("beforeprint", () => { for (const fold of folds) fold.open = true; });

  const wide = new ResizeObserver(entries => {
    for (const { target } of entries) target.classList.toggle("more", target.scrollWidth > target.clientWidth + 1);
  });
  for (const box of document.querySelectorAll(".scroll")) wide.observe(box);

  const hidden = new Set();
  const buttons = [...document.querySelectorAll("[data-toggle]")];
  const toggle = slug => {
    hidden.has(slug) ? hidden.delete(slug) : hidden.add(slug);
    for (const b of buttons)
      if (b.dataset.toggle === slug) b.setAttribute("aria-pressed", !hidden.has(slug));
    for (const g of document.querySelectorAll(".series"))
      if (g.dataset.series === slug) g.style.display = hidden.has(slug) ? "none" : "";
  };
  for (const b of buttons) b.addEventListener("click", () => toggle(b.dataset.toggle));

  const tip = document.body.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.setAttribute("role", "status");
  const number = v => v.toLocaleString("en", { maximumSignificantDigits: 4 });
  const within = (v, ends, log) =>
    log ? Math.log(v / ends[0]) / Math.log(ends[1] / ends[0]) : (v - ends[0]) / (ends[1] - ends[0]);

  const place = (plot, x, y) => {
    const [left, right, bottom, top] = plot.box;
    return [left + within(x, plot.x) * (right - left), bottom + within(y, plot.y, plot.log) * (top - bottom)];
  };
  const nearest = (plot, at) => {
    let best = null, least = 40 ** 2;
    const [left, right, bottom, top] = plot.box;
    for (const one of plot.series) {
      if (hidden.has(one.slug)) continue;
      one.x.forEach((x, i) => {
        if (x === null || one.y[i] === null) return;
        const [px, py] = place(plot, x, one.y[i]);
        if (!(px >= left - 1 && px <= right + 1 && py <= bottom + 1 && py >= top - 1)) return;
        const far = (px - at[0]) ** 2 + (py - at[1]) ** 2;
        if (far < least) { least = far; best = { one, i, px, py }; }
      });
    }
    return best;
  };
  const text = (plot, { one, i }) => {
    const lines = [one.name, `${plot.labels[0].split(":")[0]} ${number(one.x[i])}`,
                   `${plot.labels[1].split(" (")[0]} ${number(one.y[i])}`];
    if (one.low && one.low[i] !== null) lines.push(`range ${number(one.low[i])} to ${number(one.high[i])}`);
    return lines;
  };

  for (const svg of document.querySelectorAll("svg[data-points]")) {
    const plot = JSON.parse(svg.dataset.points);
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    const dot = svg.appendChild(document.createElementNS(svg.namespaceURI, "circle"));
    dot.setAttribute("r", 3.5);
    dot.setAttribute("class", "dot");
    const leave = () => { tip.style.display = dot.style.display = "none"; };
    const mark = found => {
      const box = svg.getBoundingClientRect();
      dot.setAttribute("cx", found.px);
      dot.setAttribute("cy", found.py);
      dot.style.display = tip.style.display = "block";
      tip.replaceChildren(...text(plot, found).map((line, i) => {
        const part = document.createElement(i ? "div" : "b");
        part.textContent = line;
        return part;
      }));
      const x = box.left + found.px * box.width / width, y = box.top + found.py * box.height / height;
      tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 8)) + scrollX}px`;
      tip.style.top = `${(y > tip.offsetHeight + 16 ? y - tip.offsetHeight - 10 : y + 14) + scrollY}px`;
    };
    const show = event => {
      const box = svg.getBoundingClientRect();
      const at = [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height];
      const found = nearest(plot, at);
      if (!found) return leave();
      mark(found);
    };
    leave();
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", leave);

    const points = plot.series.map(one => one.x.flatMap((x, i) => {
      if (x === null || one.y[i] === null) return [];
      const [px, py] = place(plot, x, one.y[i]);
      return Number.isFinite(px + py) ? [{ one, i, px, py }] : [];
    }));
    const drawn = () => points.filter(line => line.length && !hidden.has(line[0].one.slug));
    let line = null, at = 0;
    const keys = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    svg.addEventListener("keydown", event => {
      if (event.key === "Escape") return leave();
      const lines = drawn(), step = keys[event.key];
      if (!step || !lines.length) return;
      event.preventDefault();
      const known = lines.indexOf(line);
      if (known < 0) { line = lines[0]; at = line.length - 1; }  // begins at the end of the first line
      else {
        line = lines[(known + step[0] + lines.length) % lines.length];
        at = Math.max(0, Math.min(at + step[1], line.length - 1));
      }
      mark(line[at]);
    });
    svg.addEventListener("blur", leave);
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("role", "application");
    svg.setAttribute("aria-roledescription", "plot; arrow keys read its points");
  }
})();
