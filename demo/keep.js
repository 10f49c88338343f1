// Keeps heads, which may be hours of work, in the browser, under their photo's size and digest.
// `changed` is called when `hasRoom` may have changed.
class KeptHeads {
  static MOST = 20; // photos
  static #NAME = "csrnet-hub heads ";
  #storage = null;
  #memory = new Map(); // heads that storage did not accept, until the page is left
  // { key, list, at, written, edited } of the last photo: its heads, when they were marked, whether
  // they are stored, whether the visitor edited them
  #photo = null;
  #changed;

  constructor(changed) {
    this.#changed = changed;
    try { this.#storage = window.localStorage; } catch { /* this browser stores nothing */ }
  }

  get hasRoom() { return this.#storage && !this.#memory.size; }

  of(photograph, fits) { // the stored heads that fit
    const key = KeptHeads.#NAME + photograph;
    if (this.#memory.has(key)) return this.#memory.get(key);
    try {
      const text = this.#storage.getItem(key);
      return JSON.parse(text.slice(text.indexOf(" "))).filter(fits);
    } catch { return []; }
  }

  mark(photograph, list, back) { // back: the heads come from `of`
    if (!back && (!this.#photo || this.#photo.written)) setTimeout(() => this.write(), 300);
    const key = KeptHeads.#NAME + photograph;
    this.#photo = { key, list, at: Date.now(), written: back, edited: !back };
  }

  downloaded() { // leaving asks no more; the heads stay, since a browser may not have saved the file
    if (!this.#photo) return;
    this.write();
    this.#memory.delete(this.#photo.key);
    this.#photo = { ...this.#photo, list: [], edited: false };
    this.#changed();
  }

  write() {
    if (!this.#photo || this.#photo.written) return;
    const { key, list, at } = this.#photo;
    this.#photo.written = true;
    this.#memory.delete(key);
    try {
      if (list.length) this.#store(key, `${at} ${JSON.stringify(list)}`);
      else this.#storage.removeItem(key);
    } catch { // marking continues without storage
      if (list.length) this.#memory.set(key, list);
    } finally {
      this.#changed();
    }
  }

  #store(key, text) { // replaces the oldest if there is no room
    const storage = this.#storage, gone = [];
    const others = Object.keys(storage).filter((one) => one.startsWith(KeptHeads.#NAME) && one !== key);
    others.sort((a, b) => parseInt(storage[a]) - parseInt(storage[b]));
    while (others.length >= KeptHeads.MOST) storage.removeItem(others.shift());
    for (;;) {
      try { storage.setItem(key, text); return; }
      catch (full) {
        if (!others.length) {
          for (const [one, theirs] of gone) storage.setItem(one, theirs); // there was still no room
          throw full;
        }
        gone.push([others[0], storage[others[0]]]);
        storage.removeItem(others.shift());
      }
    }
  }

  leave() { // another tab may have stored other heads for the photo: the latest stay
    const photo = this.#photo;
    let theirs = 0;
    try { theirs = parseInt(this.#storage.getItem(photo.key)) || 0; } catch { /* nothing stored */ }
    if (photo?.list.length && photo.edited && theirs <= photo.at) photo.written = false;
    this.write();
  }

  next() { // another photo
    this.leave();
    this.#photo = null;
  }

  mayLeave(unasked) { // without asking; unasked: by a reload, after which stored heads are restored
    this.leave();
    if (this.#memory.size) return false;
    return !this.#photo?.list.length || (unasked && this.#isStored());
  }

  #isStored() {
    const { key, list } = this.#photo;
    try { return this.#storage.getItem(key).endsWith(` ${JSON.stringify(list)}`); }
    catch { return false; }
  }
}
