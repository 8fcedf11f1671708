// The official TypeScript clients, of versions 1 and 2, play the main job.
// Usage: node job.mjs SDK VERSION ERA TRANSPORT URL TOKEN, or with stdio for TRANSPORT and a command for URL. SDK is the folder of the package.
import { pathToFileURL } from "node:url";

const [sdk, version, era, transport, to, token] = process.argv.slice(2);
const load = (path) => import(pathToFileURL(`${sdk}/${path}`).href);
const first = version === "1";
const { Client, ...rest } = await load(first ? "dist/esm/client/index.js" : "dist/index.mjs");
const transports = first
	? { ...(await load("dist/esm/client/streamableHttp.js")), ...(await load("dist/esm/client/sse.js")), ...(await load("dist/esm/client/stdio.js")) }
	: { ...rest, ...(await load("dist/stdio.mjs")) };
const client = new Client(
	{ name: "typescript", version: "1" },
	first ? { capabilities: {} } : { capabilities: {}, versionNegotiation: { mode: era === "legacy" ? "legacy" : { pin: era } } },
);
const options = { requestInit: { headers: { Authorization: `Bearer ${token}` } } };
switch (transport) {
	case "http":
		await client.connect(new transports.StreamableHTTPClientTransport(new URL(to), options));
		break;
	case "sse":
		await client.connect(new transports.SSEClientTransport(new URL(to), options));
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
console.log(requests[0].id); // a human is to approve it
const { operations } = await call("wait", { ids: [requests[0].id], timeout: 30 });
const { destroyed } = await call("destroy_sandbox", { names: ["base", "base-1", "base-2", "base-3"] });
console.log(JSON.stringify({ tools: tools.length, first: tools[0], made, state: operations[0].result.state, destroyed: destroyed.length }));
await client.close();
