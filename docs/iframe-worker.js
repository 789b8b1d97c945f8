// Browsers start no worker for a page that was opened as a file, and the search of the theme runs in one. Here such a worker is a hidden frame:
// its script runs beside the page instead of behind it. The theme looks for the name IFrameWorker to know it.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.ready = new Promise((resolve) => {
        const begin = () => {
          document.body.append(frame);
          const inner = frame.contentWindow;
          // What the worker sends goes to whoever listens to this object.
          inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          inner.importScripts = (...addresses) => addresses.reduce((before, next) => before.then(() => load(inner, next)), Promise.resolve());
          load(inner, address).then(() => resolve(inner));
        };
        if (document.body) begin();
        else addEventListener("DOMContentLoaded", begin);
      });
    }

    postMessage(data) {
      this.ready.then((inner) => inner.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
  window.Worker = window.IFrameWorker;

  function load(inner, address) {
    return new Promise((resolve, reject) => {
      const script = inner.document.createElement("script");
      script.src = String(address);
      script.onload = resolve;
      script.onerror = () => reject(new Error(`cannot load ${address}`));
      inner.document.head.append(script);
    });
  }
}
