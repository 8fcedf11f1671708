"use strict";
// An address of the page is a shell that everybody gets. What is on it comes with the secret of the session, which this
// script keeps for its tab, in storage that belongs to this origin alone, and sends with all that it asks.

const find = (selector) => document.querySelector(selector);
const live = find("[data-live]");
const announce = find("[data-announce]");
const said = find("[data-said]");
const content = find("[data-content]");
let part = null; // what renews itself
let renewing = 0;

// Tabs of this origin tell each other the secret, so that a link in a message needs no new sign-in.
const SECRET = "pixels-session";
const tabs = new BroadcastChannel("pixels");
let secret = sessionStorage.getItem(SECRET) || "";
tabs.onmessage = (e) => {
	if (e.data === "who" && secret) tabs.postMessage({ secret });
	else if (e.data?.secret && !secret) signedIn(e.data.secret);
};

function signedIn(value) {
	secret = value;
	sessionStorage.setItem(SECRET, secret);
	start();
}

function signedOut() {
	secret = "";
	sessionStorage.removeItem(SECRET);
	stream?.abort();
	content.replaceChildren();
	part = null;
	document.querySelectorAll("[data-signed-in]").forEach((e) => (e.hidden = true));
	find("[data-login]").hidden = false;
	document.title = "Sign in – Pixels";
	find("#token").focus();
}

const ask = (to, options = {}) => fetch(to, { ...options, credentials: "omit", headers: { "X-Pixels-Session": secret || "none" } });
const post = (to, body) => ask(to, { method: "POST", body });

// When the network interfaces of the machine change, as a sandbox comes or goes, browsers drop what is under way. What
// changes nothing is asked for once more.
const again = (what) => what().catch(what);

function say(text, bad) {
	said.textContent = text;
	said.hidden = !text;
	said.classList.toggle("bad", Boolean(bad));
}

function title(name, open) {
	const badge = find("[data-open]");
	badge.textContent = open;
	badge.hidden = !open;
	document.title = (open ? "(" + open + ") " : "") + name + " – Pixels";
}

// load gets what is on this page.
async function load() {
	let answer;
	try {
		answer = await again(() => ask(location.pathname + location.search));
	} catch {
		return say("The server does not answer.", true);
	}
	if (answer.status === 401) return signedOut();
	content.innerHTML = await answer.text();
	part = content.querySelector("[data-part]");
	listChanged = performance.now();
	countDown();
	const top = content.querySelector("[data-title]");
	if (top) title(top.dataset.title, Number(top.dataset.count));
	for (const a of document.querySelectorAll("nav a")) {
		if (a.getAttribute("href") === location.pathname) a.setAttribute("aria-current", "page");
		else a.removeAttribute("aria-current");
	}
	clearInterval(renewing);
	if (part?.dataset.every) renewing = setInterval(refresh, part.dataset.every * 1000);
}

function start() {
	find("[data-login]").hidden = true;
	document.querySelectorAll("[data-signed-in]").forEach((e) => (e.hidden = false));
	load();
	listen();
}

// No key and no button decides right after the list changed: it may be another card that is under the finger now.
const SETTLE = 700; // ms
let listChanged = -SETTLE;
const settled = () => performance.now() - listChanged >= SETTLE;

// countDown shows for how long a connection waits still.
function countDown() {
	for (const e of document.querySelectorAll("[data-held]")) {
		const left = Math.ceil((Number(e.dataset.held) - Date.now()) / 1000);
		e.textContent = left > 0 ? "a connection waits for your answer, for " + left + " s still" : "the connection has failed: after a yes the agent must try again";
		e.classList.toggle("over", left <= 0);
	}
}
setInterval(countDown, 500);

const cards = () => [...document.querySelectorAll("[data-card]")];

// What somebody is just filling in is kept: a card is replaced only by one that is new, or goes when it was decided.
async function refresh() {
	if (!part) return;
	let answer;
	try {
		answer = await ask(part.dataset.part);
	} catch {
		return; // the stream says so
	}
	if (answer.status === 401) return signedOut();
	if (!answer.ok) return;
	const next = document.createElement("div");
	next.innerHTML = await answer.text();
	const fresh = [...next.querySelectorAll("[data-card]")];
	if (part.id !== "cards") {
		if (!part.contains(document.activeElement)) part.replaceChildren(...next.childNodes);
		return;
	}
	// Cards that are there stay where they are, so that neither focus nor what is being typed is lost. Of one that goes the
	// focus goes to none: the next key would decide about a neighbour.
	const focused = document.activeElement?.closest?.("[data-card]");
	const before = cards().map((c) => c.id).join();
	const known = new Map(cards().map((c) => [c.id, c]));
	for (const child of [...part.childNodes]) {
		if (!known.has(child.id) || !fresh.some((c) => c.id === child.id)) child.remove();
	}
	for (const child of [...next.childNodes]) {
		const old = known.get(child.id);
		if (old) {
			old.querySelector("header").replaceWith(child.querySelector("header"));
			if (old.querySelector("[name=seen]").value !== child.querySelector("[name=seen]").value) {
				listChanged = performance.now(); // it is another question now
				lighten(old.querySelector("form"));
			}
			for (const name of ["seen", "scope"]) {
				const now = old.querySelectorAll(`[name=${name}]`);
				child.querySelectorAll(`[name=${name}]`).forEach((input, i) => {
					now[i].value = input.value;
					now[i].nextElementSibling?.matches("span") && (now[i].nextElementSibling.textContent = input.nextElementSibling.textContent);
				});
			}
			continue;
		}
		if (child.matches?.("[data-card]")) {
			child.classList.add("new");
			if (announce) announce.textContent = "New request: " + child.querySelector(".domain").textContent;
		}
		part.append(child);
	}
	if (cards().map((c) => c.id).join() !== before) listChanged = performance.now();
	if (focused && !focused.isConnected) find("#main").focus();
	countDown();
	title("Requests", fresh.length);
}

// listen hears whenever requests change. An EventSource can't send the secret.
let stream = null;
async function listen() {
	stream?.abort();
	const mine = (stream = new AbortController());
	const text = live.querySelector("span");
	const show = (on) => {
		live.className = on ? "live on" : "live off";
		text.textContent = on ? "live" : "not connected";
	};
	try {
		const answer = await ask("/events", { signal: mine.signal });
		if (answer.status === 401) return signedOut();
		if (answer.ok) {
			show(true);
			const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
			for (;;) {
				const { value, done } = await reader.read();
				if (done) break;
				if (!value.includes("event: requests")) continue;
				if (part?.id === "cards") refresh();
				else count();
			}
		}
	} catch {
		// shown below
	}
	if (mine.signal.aborted) return;
	show(false);
	setTimeout(() => mine === stream && secret && listen(), 3000);
}

async function count() {
	const answer = await ask("/?part=cards").catch(() => null);
	if (!answer?.ok) return;
	const box = document.createElement("div");
	box.innerHTML = await answer.text();
	const top = content.querySelector("[data-title]");
	if (top) title(top.dataset.title, box.querySelectorAll("[data-card]").length);
}

// The browser's own dialogue about a passkey: for options of the server, what the key says to them.
async function passkey(begin, body, make) {
	const answer = await again(() => post(begin, body));
	if (!answer.ok) throw await refusal(answer);
	const { publicKey } = await answer.json();
	const said = make
		? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(publicKey) })
		: await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(publicKey) });
	return JSON.stringify(said.toJSON());
}

// What is for much, as a wildcard, is asked for by a second press, on a button that names it.
class Heavy extends Error {}
async function refusal(answer) {
	const text = await answer.text();
	return answer.status === 428 ? new Heavy(text) : new Error(text);
}

function weigh(form, text) {
	const button = form.querySelector("[data-approve]");
	const what = text.replace(/^press again to approve /, "");
	button.dataset.sure = what;
	button.textContent = "Yes, " + what;
	button.classList.add("heavy");
	say("Press again to approve " + form.closest("[data-card]").querySelector(".domain").textContent + ": " + what + ".", true);
}

function lighten(form) {
	const button = form?.querySelector("[data-approve]");
	if (!button?.dataset.sure) return;
	delete button.dataset.sure;
	button.textContent = "Approve";
	button.classList.remove("heavy");
}
document.addEventListener("change", (e) => lighten(e.target.closest("[data-decide]")));

async function send(form, action) {
	const buttons = [...form.querySelectorAll("button")];
	const body = new URLSearchParams(new FormData(form));
	body.set("sure", form.querySelector("[data-approve]")?.dataset.sure || "");
	buttons.forEach((b) => (b.disabled = true));
	try {
		if (form.dataset.passkey && action === form.getAttribute("action")) body.set("assertion", await passkey(form.dataset.passkey, body, false));
		if (form.matches("[data-enrol]")) body.set("credential", await passkey("/passkeys/begin", body, true));
		const answer = await post(action, body);
		if (answer.status === 401) return signedOut();
		if (answer.status === 428) throw await refusal(answer);
		say(await answer.text(), !answer.ok);
		const onward = answer.headers.get("X-Pixels-Onward");
		if (onward) {
			form.closest(".card").remove();
			return location.assign(onward);
		}
	} catch (e) {
		if (e instanceof Heavy) weigh(form, e.message);
		else say(e instanceof TypeError ? "The server does not answer. Nothing was decided." : e.message, true);
	}
	buttons.forEach((b) => (b.disabled = false));
	if (part) await refresh();
	else if (!said.classList.contains("bad")) await load();
}

async function signIn(form) {
	const wrong = find("#wrong");
	const button = form.querySelector("button");
	button.disabled = true;
	try {
		const answer = await post("/login", new URLSearchParams(new FormData(form)));
		const text = await answer.text();
		form.reset();
		wrong.hidden = answer.ok;
		wrong.textContent = text;
		if (answer.ok) {
			wrong.textContent = "";
			signedIn(text);
		}
	} catch {
		wrong.hidden = false;
		wrong.textContent = "The server does not answer.";
	}
	button.disabled = false;
	form.querySelector("input").focus();
}

document.addEventListener("submit", (e) => {
	const form = e.target;
	if (form.method !== "post") return; // a filter, which is an address
	e.preventDefault();
	if (form.matches("[data-sign-in]")) return signIn(form);
	if (form.matches("[data-decide]") && !settled()) return say("The list has just changed. Look at it, and decide again.", true);
	if (form.dataset.panic && !confirm(form.dataset.panic)) return;
	send(form, e.submitter?.getAttribute("formaction") || form.getAttribute("action"));
});

find("[data-sign-out]").addEventListener("click", async () => {
	await post("/logout").catch(() => null);
	signedOut();
});

document.addEventListener("keydown", (e) => {
	if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches("input, select, textarea")) {
		if (e.key === "Escape") e.target.blur();
		return;
	}
	const all = cards();
	if (!all.length) return;
	if (e.repeat) return e.preventDefault(); // a key that is held down
	const mine = e.target.closest("[data-card]");
	const at = all.indexOf(mine);
	switch (e.key) {
		case "j":
			all[Math.min(at + 1, all.length - 1)].focus();
			break;
		case "k":
			all[Math.max(at - 1, 0)].focus();
			break;
		case "l":
			if (mine) {
				mine.querySelector("[name=scope][value=lineage]").checked = true;
				lighten(mine.querySelector("form"));
			}
			break;
		case "a":
			mine?.querySelector("[data-approve]").click();
			break;
		case "d":
			mine?.querySelector("[data-deny]").click();
			break;
		default:
			return;
	}
	e.preventDefault();
});

if (secret) start();
else {
	tabs.postMessage("who");
	setTimeout(() => secret || signedOut(), 150);
}
