/** The REST calls of the page. They are signed in by cookie, so each write carries the CSRF token. */

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export class Api {
  constructor({ root, csrfCookie, csrfField }) {
    this.root = root;
    this.csrfCookie = csrfCookie;
    this.csrfField = csrfField;
  }

  sessions(cursor = null) {
    return this.#call("GET", "sessions", { limit: 30, ...(cursor && { cursor }) });
  }

  createSession(title) {
    return this.#call("POST", "sessions", {}, { title });
  }

  messagesBefore(sessionId, order) {
    return this.#call("GET", `sessions/${sessionId}/messages`, { before: order, limit: 50 });
  }

  async #call(method, path, query, body) {
    const url = `${this.root}${path}?${new URLSearchParams(query)}`;
    const headers = { Accept: "application/json" };
    if (body) Object.assign(headers, { "Content-Type": "application/json", "X-CSRFToken": this.#csrf() });
    let response;
    try {
      response = await fetch(url.replace(/\?$/, ""), { method, headers, body: body && JSON.stringify(body) });
    } catch {
      throw new ApiError(0, "network", "The server can't be reached.");
    }
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new ApiError(response.status, answer.code ?? "http", answer.message ?? answer.detail ?? `HTTP ${response.status}`);
    return answer;
  }

  /** The cookie is fresher than the page's field (another tab may have signed in); it may be out of scripts' reach. */
  #csrf() {
    const prefix = `${this.csrfCookie}=`;
    const cookie = document.cookie.split("; ").find((part) => part.startsWith(prefix));
    return cookie ? decodeURIComponent(cookie.slice(prefix.length)) : this.csrfField.value;
  }
}
