"use strict";

// Connects, asks for the key, keeps the panels up to date, and connects again.

const POLL_MS = 2000;
const METRICS_RETRY_MS = 30_000;
const LONGEST_WAIT_S = 30;

const live = new LivePanel();
const overview = new StatusPanel();
const sessions = new SessionsPanel();
const requests = new RequestsPanel();
const plugins = new PluginsPanel();

function setConnection(text, kind) {
  byId("connection").className = `chip ${kind}`;
  setText(byId("connection"), text);
}

async function followMetrics(signal) {
  const section = byId("live");
  while (!signal.aborted) {
    await showIn(section, async () => {
      await live.seed();
      section.classList.remove("off");
      for await (const event of follow("/metrics/stream", { query: { interval: 1000 }, signal })) live.show(event);
    });
    await pause(METRICS_RETRY_MS, signal);
  }
}

async function poll(signal) {
  while (!signal.aborted) {
    if (!document.hidden) {
      await overview.refresh();
      for (const panel of [requests, sessions, plugins]) await showIn(panel.section, () => panel.refresh());
    }
    await pause(POLL_MS, signal);
  }
}

let isLocked = false;

/** Shows the dialog until the user gives a key. */
function askForKey(problem) {
  const dialog = byId("key-dialog");
  isLocked = true;
  setText(byId("key-error"), problem);
  if (!dialog.open) dialog.showModal();
  byId("key").select();
  return new Promise((resolve) => {
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      apiKey.set(byId("key").value.trim());
      resolve();
    }, { once: true });
  });
}

async function waitAfter(error, failures) {
  setConnection("Disconnected", "bad");
  const seconds = Math.min(LONGEST_WAIT_S, 2 ** (failures - 1));
  const now = new AbortController();
  byId("try-now").onclick = () => now.abort();
  setText(byId("lost-text"), `${error.message.replace(/\.?$/, ".")} Trying again in about ${seconds} s.`);
  byId("lost").hidden = false;
  document.body.classList.add("stale");
  // Not all open pages at once.
  await pause(1000 * seconds * (0.75 + Math.random() / 2), now.signal);
}

async function run() {
  for (let failures = 0; ;) {
    const connection = new AbortController();
    try {
      await overview.refresh();
      failures = 0;
      requests.forget();
      isLocked = false;
      byId("key-dialog").close();
      byId("key").value = "";
      byId("forget-key").hidden = !apiKey.get();
      byId("lost").hidden = true;
      document.body.classList.remove("stale");
      setConnection("Live", "good");
      await Promise.race([followMetrics(connection.signal), poll(connection.signal)]);
    } catch (error) {
      connection.abort();
      if (error instanceof Refusal && error.status === 401) {
        setConnection("Locked", "warn");
        await askForKey(apiKey.get() ? "The server does not know this key." : "");
      } else {
        if (!(error instanceof Refusal || error instanceof Unreachable)) console.error(error);
        await waitAfter(error, ++failures);
      }
    }
  }
}

// A key that was asked for has to be given: without it there is nothing to see.
byId("key-dialog").addEventListener("close", () => isLocked && byId("key-dialog").showModal());

const deleteDialog = byId("delete-dialog");
deleteDialog.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  deleteDialog.close("delete");
});
byId("delete-cancel").addEventListener("click", () => deleteDialog.close());

byId("forget-key").addEventListener("click", () => {
  apiKey.forget();
  location.reload();
});

run();
