"use strict";

// Talks to the server that the page came from.

// Whatever stands before /v1/atlas: an --api-prefix, or the path of a proxy.
const BASE = location.pathname.replace(/\/dashboard\/?$/, "");
// Of a router, which passes on what names a model.
const MODEL = new URLSearchParams(location.search).get("model");

const KEY_NAME = "atlas-api-key";
const TIMEOUT_MS = 20_000;
// The stream brings an event a second.
const SILENCE_MS = 15_000;

/** The server refused; `status` is HTTP's, the message the server's own. */
class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** There was no answer, or it broke off. */
class Unreachable extends Error {}

const apiKey = {
  get: () => sessionStorage.getItem(KEY_NAME),
  set: (key) => sessionStorage.setItem(KEY_NAME, key),
  forget: () => sessionStorage.removeItem(KEY_NAME),
};

async function send(path, { method = "GET", body, query = {}, signal }) {
  const url = new URL(BASE + path, location.origin);
  const parameters = MODEL && method === "GET" ? { ...query, model: MODEL } : query;
  url.search = new URLSearchParams(parameters);
  const headers = {};
  if (apiKey.get()) headers.Authorization = `Bearer ${apiKey.get()}`;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(url, {
      method, headers, signal, cache: "no-store", body: body && JSON.stringify(MODEL ? { ...body, model: MODEL } : body),
    });
  } catch (error) {
    throw new Unreachable("The server does not answer.", { cause: error });
  }
  if (!response.ok) {
    const answer = await response.json().catch(() => null);
    throw new Refusal(response.status, answer?.error?.message ?? `The server answered ${response.status}.`);
  }
  return response;
}

/** The JSON that answers a GET, or a POST where there is a body. Throws Refusal and Unreachable. */
async function ask(path, { body, query, signal } = {}) {
  const deadline = AbortSignal.timeout(TIMEOUT_MS);
  const response = await send(path, {
    method: body ? "POST" : "GET", body, query, signal: signal ? AbortSignal.any([signal, deadline]) : deadline,
  });
  try {
    return await response.json();
  } catch (error) {
    throw new Unreachable("The server's answer broke off.", { cause: error });
  }
}

/** The data of each event of a stream, until `signal`. Throws Refusal, and Unreachable at its end. */
async function* follow(path, { query, signal }) {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const response = await send(path, { query, signal: AbortSignal.any([signal, silence.signal]) });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read().catch(() => ({ done: true }));
      if (done) throw new Unreachable("The connection was lost.");
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.split("\n").find((line) => line.startsWith("data: "));
        if (data) yield JSON.parse(data.slice("data: ".length));
      }
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

/** Resolves after some time, or as soon as `signal` says so. */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
