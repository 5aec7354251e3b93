/** The REST calls of the page. They are signed in by cookie, so each write carries the CSRF token. */

const PATIENCE = 30_000;
/** Many megabytes over a slow line. */
const UPLOAD_PATIENCE = 600_000;
const COLLECTION = "collections/default";

/** `status` 0: no answer. `retryAfter`: seconds, 0 if the server names none. */
export class ApiError extends Error {
  constructor(status, code, message, retryAfter = 0) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
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

  session(id) {
    return this.#call("GET", `sessions/${id}`);
  }

  /** Documents of the default collection of a workspace, the person's own without one: newest first. */
  documents(workspace, before = "") {
    return this.#call("GET", `${COLLECTION}/documents`, { limit: 30, before, workspace });
  }

  /** The default collection, with the number of documents in each state. */
  collection(workspace) {
    return this.#call("GET", COLLECTION, { workspace });
  }

  upload(form, workspace) {
    return this.#call("POST", `${COLLECTION}/documents`, { workspace }, form);
  }

  retryDocument(id, workspace) {
    return this.#call("POST", `documents/${id}/retry`, { workspace });
  }

  deleteDocument(id, workspace) {
    return this.#call("DELETE", `documents/${id}`, { workspace });
  }

  /** Characters `start` to `end` of a document's text. They are code points. */
  documentText(id, start, end, workspace) {
    return this.#call("GET", `documents/${id}/text`, { start, end, workspace });
  }

  /** What is empty in `query` is left out. */
  async #call(method, path, query = {}, body) {
    const named = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined);
    const url = `${this.root}${path}?${new URLSearchParams(named)}`;
    const form = body instanceof FormData;
    const headers = { Accept: "application/json" };
    if (method !== "GET") headers["X-CSRFToken"] = this.#csrf();
    if (body && !form) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(url.replace(/\?$/, ""), {
        method,
        headers,
        body: body && !form ? JSON.stringify(body) : body,
        // A list that has not changed costs its ETag.
        cache: "no-cache",
        signal: AbortSignal.timeout(form ? UPLOAD_PATIENCE : PATIENCE),
      });
    } catch {
      throw new ApiError(0, "network", "The server can't be reached.");
    }
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    const message = answer.message ?? answer.detail ?? `HTTP ${response.status}`;
    throw new ApiError(response.status, answer.code ?? "http", message, Number(response.headers.get("Retry-After")) || 0);
  }

  /** The cookie is fresher than the page's field (another tab may have signed in); it may be out of scripts' reach. */
  #csrf() {
    const prefix = `${this.csrfCookie}=`;
    const cookie = document.cookie.split("; ").find((part) => part.startsWith(prefix));
    return cookie ? decodeURIComponent(cookie.slice(prefix.length)) : this.csrfField.value;
  }
}
