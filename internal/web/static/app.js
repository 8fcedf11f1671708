"use strict";
// The page works without this: it makes it live, and answers by keyboard.

const part = document.querySelector("[data-part]");
const live = document.querySelector("[data-live]");
const announce = document.querySelector("[data-announce]");
const said = document.querySelector("[data-said]");

function say(text, bad) {
	if (!said) return;
	said.textContent = text;
	said.hidden = !text;
	said.classList.toggle("bad", Boolean(bad));
}

const cards = () => [...document.querySelectorAll("[data-card]")];

// What somebody is just filling in is kept: a card is replaced only by one that is new, or goes when it was decided.
async function refresh() {
	if (!part) return;
	let answer;
	try {
		answer = await fetch(part.dataset.part, { headers: { "X-Requested-With": "page" } });
	} catch {
		return; // the stream says so
	}
	if (answer.status === 401) return location.reload();
	if (!answer.ok) return;
	const next = document.createElement("div");
	next.innerHTML = await answer.text();
	const fresh = [...next.querySelectorAll("[data-card]")];
	if (part.id !== "cards") {
		if (!part.contains(document.activeElement)) part.replaceChildren(...next.childNodes);
		return;
	}
	// Cards that are there stay where they are, so that neither focus nor what is being typed is lost.
	const focused = document.activeElement?.closest?.("[data-card]");
	const index = cards().indexOf(focused);
	const known = new Map(cards().map((c) => [c.id, c]));
	for (const child of [...part.childNodes]) {
		if (!known.has(child.id) || !fresh.some((c) => c.id === child.id)) child.remove();
	}
	for (const child of [...next.childNodes]) {
		const old = known.get(child.id);
		if (old) {
			old.querySelector("header").replaceWith(child.querySelector("header"));
			continue;
		}
		if (child.matches?.("[data-card]")) {
			child.classList.add("new");
			if (announce) announce.textContent = "New request: " + child.querySelector(".domain").textContent;
		}
		part.append(child);
	}
	if (focused && !focused.isConnected) {
		const left = cards();
		(left[Math.min(index, left.length - 1)] || document.getElementById("main")).focus();
	}
	const open = document.querySelector("[data-open]");
	if (open) {
		open.textContent = fresh.length;
		open.hidden = fresh.length === 0;
		document.title = (fresh.length ? "(" + fresh.length + ") " : "") + "Requests – Pixels";
	}
}

function listen() {
	const stream = new EventSource("/events");
	const text = live.querySelector("span");
	stream.onopen = () => {
		live.className = "live on";
		text.textContent = "live";
	};
	stream.onerror = () => {
		live.className = "live off";
		text.textContent = "not connected";
		if (stream.readyState === EventSource.CLOSED) {
			stream.close();
			setTimeout(listen, 3000);
		}
	};
	stream.addEventListener("requests", () => {
		if (part?.id === "cards") refresh();
		else count();
	});
}

async function count() {
	const answer = await fetch("/?part=cards", { headers: { "X-Requested-With": "page" } }).catch(() => null);
	if (!answer?.ok) return;
	const box = document.createElement("div");
	box.innerHTML = await answer.text();
	const n = box.querySelectorAll("[data-card]").length;
	const open = document.querySelector("[data-open]");
	open.textContent = n;
	open.hidden = n === 0;
}

const post = (to, body) => fetch(to, { method: "POST", body, headers: { "X-Requested-With": "page" } });

// The browser's own dialogue about a passkey: for options of the server, what the key says to them.
async function passkey(begin, body, make) {
	const answer = await post(begin, body);
	if (!answer.ok) throw new Error(await answer.text());
	const { publicKey } = await answer.json();
	const said = make
		? await navigator.credentials.create({ publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(publicKey) })
		: await navigator.credentials.get({ publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(publicKey) });
	return JSON.stringify(said.toJSON());
}

async function send(form, action) {
	const buttons = [...form.querySelectorAll("button")];
	const body = new URLSearchParams(new FormData(form));
	buttons.forEach((b) => (b.disabled = true));
	try {
		if (form.dataset.passkey && action === form.getAttribute("action")) body.set("assertion", await passkey(form.dataset.passkey, body, false));
		if (form.matches("[data-enrol]")) body.set("credential", await passkey("/passkeys/begin", body, true));
		const answer = await post(action, body);
		say(await answer.text(), !answer.ok);
	} catch (e) {
		say(e instanceof TypeError ? "The server does not answer. Nothing was decided." : e.message, true);
	}
	buttons.forEach((b) => (b.disabled = false));
	if (!part && !said.classList.contains("bad")) setTimeout(() => location.reload(), 1500);
	await refresh();
}

document.addEventListener("submit", (e) => {
	const form = e.target;
	if (form.matches("[data-panic]")) {
		if (!confirm(form.dataset.panic)) {
			e.preventDefault();
			return;
		}
	}
	if ((form.matches("[data-decide], [data-panic]") && part) || form.matches("[data-enrol], [data-passkey]")) {
		e.preventDefault();
		send(form, e.submitter?.getAttribute("formaction") || form.getAttribute("action"));
	}
});

document.addEventListener("keydown", (e) => {
	if (e.ctrlKey || e.metaKey || e.altKey || e.target.matches("input, select, textarea")) {
		if (e.key === "Escape") e.target.blur();
		return;
	}
	const all = cards();
	if (!all.length) return;
	const mine = e.target.closest("[data-card]");
	const at = all.indexOf(mine);
	switch (e.key) {
		case "j":
			all[Math.min(at + 1, all.length - 1)].focus();
			break;
		case "k":
			all[Math.max(at - 1, 0)].focus();
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

if (live && window.EventSource) listen();
if (part?.dataset.every) setInterval(refresh, part.dataset.every * 1000);
