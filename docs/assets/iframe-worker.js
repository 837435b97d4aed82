// A Worker for pages opened from the disk, where browsers allow no real one: a hidden frame that
// runs the script on the page's own thread. Only the search uses it. On a server nothing changes.
(() => {
  if (location.protocol !== "file:") return;

  class IFrameWorker extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];  // messages sent before the script has run
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      frame.srcdoc = `<script src="${new URL(url, document.baseURI)}"></script>`;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      const answer = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const timer = setInterval(() => {
        if (!this.inside.lunr) return;  // the script sets it last but one
        clearInterval(timer);
        this.inside.postMessage = answer;
        this.ready = true;
        this.waiting.splice(0).forEach((data) => this.postMessage(data));
      }, 20);
    }

    postMessage(data) {
      if (!this.ready) this.waiting.push(data);
      else this.inside.dispatchEvent(new MessageEvent("message", { data }));
    }
  }

  window.IFrameWorker = IFrameWorker;
  window.Worker = IFrameWorker;
})();
