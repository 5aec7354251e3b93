/** The list of conversations on a small screen: slides over the page, holds the focus while it is open. */

export class Drawer {
  constructor({ drawer, button, scrim, main }) {
    Object.assign(this, { drawer, button, scrim, main });
    button.addEventListener("click", () => (this.isOpen ? this.close() : this.open()));
    scrim.addEventListener("click", () => this.close());
    matchMedia("(min-width: 48rem)").addEventListener("change", () => this.close());
  }

  get isOpen() {
    return this.drawer.classList.contains("open");
  }

  open() {
    this.#set(true);
    this.drawer.querySelector("a, button").focus();
  }

  /** Whether there was something to close. */
  close() {
    if (!this.isOpen) return false;
    this.#set(false);
    this.button.focus();
    return true;
  }

  #set(open) {
    this.drawer.classList.toggle("open", open);
    this.scrim.hidden = !open;
    this.main.inert = open;
    this.button.setAttribute("aria-expanded", String(open));
  }
}
