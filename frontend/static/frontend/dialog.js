/** A dialog over the page. The browser keeps the focus inside and gives it back; Escape, ✕ and a press beside it close it. */

export class Dialog {
  constructor(root, { closed = () => {} } = {}) {
    this.root = root;
    let pressed = null;
    root.querySelector(".close").addEventListener("click", () => this.close());
    // What is selected inside and let go beside it closes nothing.
    root.addEventListener("pointerdown", (event) => (pressed = event.target));
    root.addEventListener("click", (event) => event.target === root && pressed === root && this.close());
    root.addEventListener("close", closed);
  }

  get isOpen() {
    return this.root.open;
  }

  open() {
    if (!this.isOpen) this.root.showModal();
  }

  close() {
    this.root.close();
  }
}
