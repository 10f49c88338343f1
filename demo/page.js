// What Gradio lacks for the page as a whole.
(() => {
  const FILE = "input[type=file]", PICTURE = /(SUFFIXES)$/i;
  const CLIP = /\.(avi|flv|m4v|mkv|mov|mp4|mpe?g|m?ts|webm|wmv)$/i;
  const OTHER = ".source-selection .selected:not([aria-label='Upload file'])"; // camera, clipboard
  const seen = (one) => one.closest(".block")?.offsetParent;
  const first = (what) => [...document.querySelectorAll(what)].find(seen);
  const isImage = (file) => file.type.startsWith("image/");
  // Browsers leave the type of some pictures and clips empty, but Gradio relies on it.
  const typed = (file) => {
    const kind = PICTURE.test(file.name) ? "image" : CLIP.test(file.name) ? "video" : "";
    const type = `${kind}/${file.name.split(".").pop().toLowerCase()}`;
    return file.type || !kind ? file : new File([file], file.name, { type });
  };

  function give(input, files) {
    const given = new DataTransfer();
    for (const file of input.multiple ? files : files.slice(0, 1)) given.items.add(file);
    input.files = given.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  const TAB = '[role="tabpanel"]'; // each counts its files that are being uploaded
  const begins = (tab) => { tab.onTheWay = (tab.onTheWay || 0) + 1; };
  const ends = (tab) => { tab.onTheWay -= 1; };
  const { fetch } = window;
  window.fetch = (...sent) => {
    const answer = fetch(...sent), isUpload = /\/upload(\?|$)/.test(sent[0]?.url ?? sent[0]);
    const tab = isUpload && [...document.querySelectorAll(TAB)].find((one) => one.offsetParent);
    if (tab) {
      begins(tab);
      // a moment later their box has them and the server is told
      const done = () => setTimeout(ends, 300, tab);
      answer.then(done, done);
    }
    return answer;
  };

  // Puts files into a box, replacing its content, after files already on their way to it.
  const put = (box, files) => {
    const tab = box.closest(TAB);
    begins(tab);
    box.given = (box.given || Promise.resolve()).catch(() => {}).then(async () => {
      for (; box.isConnected; await new Promise((done) => setTimeout(done, 50))) {
        const other = box.querySelector(OTHER), input = box.querySelector(FILE);
        if (input) return give(input, files);
        if (other) box.querySelector('button[aria-label="Upload file"]').click();
        else if (!box.matches("#batch-photos")) { // clears a single-file box
          [...box.querySelectorAll(".icon-button")].at(-1)?.click();
        }
      }
    }).then(() => new Promise((done) => setTimeout(done, 50))); // the upload begins
    box.given.finally(() => ends(tab));
  };

  // Files pasted, or dropped outside the boxes, go to the visible boxes that accept them; otherwise
  // the browser would leave the page to show a dropped file.
  const BOXES = [
    [".photo", isImage],
    ["#clip", (file) => file.type.startsWith("video/")],
    ["#annotation, #earlier", (file) => /\.(csv|json|mat)$/i.test(file.name)],
    ["#batch-photos", () => true],
  ];
  function take(given) {
    const files = given.map(typed);
    let taken = 0;
    for (const [what, fits] of BOXES) {
      const box = first(what), own = box ? files.filter(fits) : [];
      if (own.length) put(box, own);
      taken += own.length;
    }
    const box = first(".photo, #clip");
    if (!taken && box?.querySelector(FILE)) put(box, files); // it says what it accepts
  }
  const holds = (data) => data && [...data.types].includes("Files");
  // Gradio's boxes would take a picture dragged within the page for a file from outside. (So none
  // can be dragged out of the page either; the buttons save them.)
  window.addEventListener("dragstart", (event) => {
    if (event.target.closest?.("img")) event.preventDefault();
  }, true);
  // A dropped folder stands for the pictures in it and in its subfolders.
  async function within(entry) {
    if (!entry.isDirectory) return [await new Promise((give, fail) => entry.file(give, fail))];
    const reader = entry.createReader(), found = [];
    for (let some = [null]; some.length;) { // a hundred at a time
      some = await new Promise((give, fail) => reader.readEntries(give, fail));
      for (const one of some) {
        const files = await within(one);
        found.push(...files.filter((file) => one.isDirectory || PICTURE.test(file.name)));
      }
    }
    return found;
  }
  window.addEventListener("drop", async (event) => {
    const items = [...(event.dataTransfer?.items || [])];
    const entries = items.map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    if (!entries.some((entry) => entry.isDirectory)) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true }));
    const files = (await Promise.all(entries.map(within).map((all) => all.catch(() => [])))).flat();
    // an empty file, for which the page shows a message
    take(files.length ? files : [new File([], entries.find((entry) => entry.isDirectory).name)]);
  }, true);
  // A photo box would lose its photo to a file that is not a picture, and boxes reject untyped files.
  const BOTH = ".photo, #clip", isTyped = (file) => file === typed(file);
  window.addEventListener("drop", (event) => {
    const box = event.target.closest?.(BOTH), files = [...(event.dataTransfer?.files || [])];
    if (!box || files.every(box.matches(".photo") ? isImage : isTyped)) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    box.querySelector(FILE)?.parentElement.dispatchEvent(new DragEvent("dragleave"));
    take(files);
  }, true);
  window.addEventListener("change", (event) => {
    const input = event.target, files = [...(input.files || [])];
    if (!input.closest?.(BOTH) || files.every(isTyped)) return;
    event.stopImmediatePropagation();
    give(input, files.map(typed));
  }, true);
  window.addEventListener("dragover", (event) => {
    if (holds(event.dataTransfer)) event.preventDefault();
  });
  window.addEventListener("drop", (event) => {
    if (event.defaultPrevented || !holds(event.dataTransfer)) return; // a box has taken it
    event.preventDefault();
    take([...event.dataTransfer.files]);
  });
  window.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files || [])];
    if (!files.length || event.target.closest?.("input, textarea, [contenteditable]")) return;
    event.preventDefault();
    take(files);
  });

  // A count requested during an upload is delayed until the files have arrived: otherwise Gradio
  // would tell the server of the files after the request, and a new file empties the tab.
  window.addEventListener("click", (event) => {
    const button = event.target.closest?.("button.counts");
    if (button && event.detail > 1) return event.stopImmediatePropagation(); // double click
    const tab = button?.closest(TAB), waits = () => button.isConnected && tab.onTheWay;
    if (!tab || !waits()) return;
    event.stopImmediatePropagation();
    if (button.getAttribute("aria-busy")) return;
    button.setAttribute("aria-busy", "true");
    const watch = setInterval(() => {
      if (waits()) return;
      clearInterval(watch);
      button.removeAttribute("aria-busy");
      if (!tab.querySelector("#photo")) button.click(); // that one is counted on arrival
    }, 50);
  }, true);

  // Over the comparison, the wheel and one finger scroll the page, as over the canvas; with Ctrl,
  // two fingers or on the handle, they control the comparison.
  function scrolls(event) {
    const box = event.target.closest?.("#comparison");
    if (!box || event.target.closest('[data-testid="slider"]') || document.fullscreenElement) return;
    const zoomed = [...box.querySelectorAll("img")].some((image) =>
      /scale\((?!1\))/.test(image.style.transform));
    const own = event.type === "wheel" ? event.ctrlKey : event.touches.length > 1 || zoomed;
    if (!own) event.stopPropagation();
  }
  for (const kind of ["wheel", "touchstart"]) {
    document.addEventListener(kind, scrolls, { capture: true, passive: true });
  }

  // Its handle supports only mouse and touch, so the keys move it by simulated mouse events.
  const HANDLE = '#comparison [data-testid="slider"]';
  const share = (handle) => { // of the picture that is left of the handle
    const image = handle.closest("#comparison").querySelector("img");
    const box = image.parentElement.getBoundingClientRect(), own = handle.getBoundingClientRect();
    const width = Math.min(box.width, box.height * image.naturalWidth / image.naturalHeight) || 0;
    const left = box.left + (box.width - width) / 2; // a tall picture leaves room beside it
    return [(own.left + own.width / 2 - left) / width, left, width];
  };
  function move(handle, to) {
    const [from, left, width] = share(handle), { top, height } = handle.getBoundingClientRect();
    const at = (place) => ({
      bubbles: true, cancelable: true, view: window,
      clientX: left + Math.min(Math.max(place, 0), 1) * width, clientY: top + height / 2,
    });
    handle.dispatchEvent(new MouseEvent("mousedown", at(from)));
    window.dispatchEvent(new MouseEvent("mousemove", at(to)));
    window.dispatchEvent(new MouseEvent("mouseup", at(to)));
  }
  document.addEventListener("keydown", (event) => {
    if (!event.target.matches?.(HANDLE) || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = { ArrowLeft: -0.05, ArrowDown: -0.05, ArrowRight: 0.05, ArrowUp: 0.05 };
    const ends = { Home: 0, End: 1 };
    if (event.key in steps) move(event.target, share(event.target)[0] + steps[event.key]);
    else if (event.key in ends) move(event.target, ends[event.key]);
    else return;
    event.preventDefault();
    requestAnimationFrame(tell);
  });

  // The menu of tabs that do not fit on a narrow page would otherwise close only on a click.
  const MORE = ".overflow-menu:has(.overflow-dropdown:not(.hide)) > button";
  document.addEventListener("keydown", (event) => {
    const button = event.key === "Escape" && document.querySelector(MORE);
    if (!button) return;
    button.click();
    button.focus();
  });

  function name(handle) {
    const [own, , width] = share(handle);
    if (!width) return; // another tab is open, or the picture is still loading
    const now = String(Math.round(100 * own));
    const words = {
      role: "slider", tabindex: "0", "aria-label": "Share of the photo beside its density map",
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": now, "aria-valuetext": `${now} %`,
    };
    for (const [key, value] of Object.entries(words)) {
      if (handle.getAttribute(key) !== value) handle.setAttribute(key, value);
    }
  }

  const say = (what, key, words) => document.querySelectorAll(what).forEach((one, i) => {
    if (one.getAttribute(key) !== words(i)) one.setAttribute(key, words(i));
  });
  // Labels that Gradio lacks; it shows whether a section is open only by an arrow.
  const tell = () => {
    document.querySelectorAll(HANDLE).forEach(name);
    say("#comparison img", "alt", (i) => i ? "Its density map in jet colours" : "The photo");
    say("#drawn button", "aria-label", (i) => `Drawn scene ${i + 1}`);
    for (const button of document.querySelectorAll("button.label-wrap")) {
      const open = String(button.classList.contains("open"));
      if (button.getAttribute("aria-expanded") !== open) button.setAttribute("aria-expanded", open);
    }
    for (const button of document.querySelectorAll('[aria-label="common.upload"]')) {
      button.setAttribute("aria-label", "Add files"); // Gradio lacks this translation
      button.title = "Add files";
    }
  };
  document.addEventListener("load", tell, true); // a picture's shape determines its place
  document.addEventListener("transitionend", tell, true); // the handle has stopped moving
  new MutationObserver(tell).observe(document, {
    // the handle's style gives its position, and changes once the pictures have their size
    subtree: true, childList: true, attributes: true, attributeFilter: ["class", "style"],
  });
})();
