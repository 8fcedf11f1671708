// The official TypeScript clients, of versions 1 and 2, play the main job.
// Usage: node job.mjs SDK VERSION ERA TRANSPORT URL TOKEN, or with stdio for TRANSPORT and a command for URL. SDK is the folder of the package.
// Without a TOKEN the client asks a human for one: it prints where their browser is to go, and reads where that came back to.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [sdk, version, era, transport, to, token] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(`${sdk}/${path}`).href);
const first = version === "1";
const { Client, ...rest } = await load(first ? "dist/esm/client/index.js" : "dist/index.mjs");
const transports = first
	? { ...(await load("dist/esm/client/streamableHttp.js")), ...(await load("dist/esm/client/sse.js")), ...(await load("dist/esm/client/stdio.js")) }
	: { ...rest, ...(await load("dist/stdio.mjs")) };
// On stdin and stdout the client's own human is asked, and says yes.
const capabilities = transport === "stdio" ? { elicitation: { form: {} } } : {};
const client = new Client(
	{ name: "typescript", version: "1" },
	first ? { capabilities } : { capabilities, versionNegotiation: { mode: era === "legacy" ? "legacy" : { pin: era } } },
);
if (transport === "stdio") {
	const kind = first ? (await load("dist/esm/types.js")).ElicitRequestSchema : "elicitation/create";
	client.setRequestHandler(kind, async () => ({ action: "accept", content: { choice: "1 hour" } }));
}
// asking is what the SDK wants to know, and have kept, of a client that asks a human.
class Asking {
	redirectUrl = "http://127.0.0.1:4321/back";
	clientMetadata = { client_name: "TypeScript", redirect_uris: [this.redirectUrl], grant_types: ["authorization_code", "refresh_token"], response_types: ["code"], token_endpoint_auth_method: "none" };
	kept = {};
	clientInformation = () => this.kept.client;
	saveClientInformation = (client) => void (this.kept.client = client);
	tokens = () => this.kept.tokens;
	saveTokens = (tokens) => void (this.kept.tokens = tokens);
	codeVerifier = () => this.kept.verifier;
	saveCodeVerifier = (verifier) => void (this.kept.verifier = verifier);
	state = () => "a state";
	redirectToAuthorization = (url) => console.log(`human: ${url}`);
}
const options = token ? { requestInit: { headers: { Authorization: `Bearer ${token}` } } } : { authProvider: new Asking() };
const connect = async (make) => {
	if (token) return client.connect(make());
	const asking = make();
	try {
		await client.connect(asking);
		throw new Error("nobody was asked");
	} catch (e) {
		if (e.constructor.name !== "UnauthorizedError") throw e;
	}
	for await (const line of createInterface({ input: process.stdin })) {
		const query = new URL(line).searchParams;
		await asking.finishAuth(first ? query.get("code") : query);
		break;
	}
	await client.close();
	await client.connect(make());
};
switch (transport) {
	case "http":
		await connect(() => new transports.StreamableHTTPClientTransport(new URL(to), options));
		break;
	case "sse":
		await connect(() => new transports.SSEClientTransport(new URL(to), options));
		break;
	default:
		await client.connect(new transports.StdioClientTransport({ command: to, args: [], env: process.env, stderr: "inherit" }));
}
const call = async (name, args) => {
	const result = await client.callTool({ name, arguments: args });
	if (result.isError) throw new Error(`${name}: ${JSON.stringify(result)}`);
	return result.structuredContent;
};
const tools = (await client.listTools()).tools.map((t) => t.name);
await call("create_sandbox", { name: "base", egress: "allowlist" });
await call("create_checkpoint", { name: "base", label: "ready" });
const { made } = await call("clone_sandbox", { source: "base:ready", count: 3, command: "true" });
const { requests } = await call("allow_domain", { name: "base-1", domains: ["example.com"], reason: "to fetch" });
if (transport !== "stdio") console.log(requests[0].id); // a human is to approve it
const { operations } = await call("wait", { ids: [requests[0].id], timeout: 30 });
const { destroyed } = await call("destroy_sandbox", { names: ["base", "base-1", "base-2", "base-3"] });
console.log(JSON.stringify({ tools: tools.length, first: tools[0], made, state: operations[0].result.state, destroyed: destroyed.length }));
await client.close();
process.exit(0);
