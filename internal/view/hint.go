// Package view puts what people and models read into words, once for all who show it.
package view

import (
	"fmt"
	"slices"
	"strings"

	"pixels/internal/fault"
	"pixels/internal/program"
)

// Audience is who reads.
type Audience int

// Who reads: a model that calls tools, a human at a terminal, one at the page; one at a terminal who uses the service of a machine that
// somebody else operates.
const (
	Agent Audience = iota
	Terminal
	Page
	Member
)

// operated are what the operator of a machine alone can do: who uses its service is told of a human who does.
var operated = []fault.Action{
	fault.SetUp, fault.SetUpImage, fault.SetUpHost, fault.JoinIncus, fault.LookAtIncus, fault.TryGateway, fault.LookAtGateway, fault.TrustClient,
	fault.GiveNetworkBack, fault.AllowByHuman, fault.SetModeByHuman, fault.ShowGrants, fault.DecideElsewhere, fault.SetPassphrase, fault.ProveAnew,
}

// hints are what each audience is told to do. NAME and VALUE stand for those of the hint, PROGRAM for the name of this program.
// Where the page has no words of its own, those for the terminal hold there, too.
var hints = map[fault.Action][3]string{
	fault.ListSandboxes:    {"list_sandboxes shows what there is", "`PROGRAM list` shows what there is"},
	fault.CreateSandbox:    {"create_sandbox makes one", "`PROGRAM create NAME` makes one"},
	fault.OtherName:        {"choose another name, or destroy_sandbox it first", "choose another name, or first `PROGRAM destroy NAME`"},
	fault.StartSandbox:     {"set_sandbox_state with the state running mends it", "`PROGRAM start NAME` mends it"},
	fault.Extend:           {"extend_sandbox gives it another, then it can be started", "`PROGRAM extend NAME TIME` gives it another, then it can be started"},
	fault.ListCheckpoints:  {"write it as NAME:LABEL; list_checkpoints shows the labels of a sandbox, create_checkpoint makes one", "write it as NAME:LABEL; `PROGRAM checkpoint list NAME` shows the labels of a sandbox"},
	fault.CreateCheckpoint: {"create_checkpoint makes one", "`PROGRAM checkpoint create NAME` makes one"},
	fault.DeleteCheckpoint: {"delete_checkpoint those that are not needed, or clone the checkpoint with clone_sandbox", "`PROGRAM checkpoint delete NAME LABEL` those that are not needed, or clone the checkpoint"},
	fault.AskForDomain:     {"allow_domain asks for a domain", "`PROGRAM network allow NAME DOMAIN` allows one"},
	fault.ListFiles:        {"list_files shows what there is", "`PROGRAM exec NAME ls` shows what there is"},
	fault.ReadFile:         {"read_file reads it", "read it in the sandbox"},
	fault.WriteFile:        {"write_file makes a new file", "write it in the sandbox"},
	fault.CopyFiles:        {"use copy_files, or exec with a tool inside", "copy it"},
	fault.ReadBytes:        {"ask for the encoding base64, or use copy_files or a tool inside", "copy it"},
	fault.RunInside:        {"use exec with VALUE", "run VALUE in the sandbox"},
	fault.SetUp:            {"a human runs `PROGRAM setup`, which makes what is missing", "run `PROGRAM setup`, which makes what is missing"},
	fault.SetUpImage:       {"a human makes VALUE with `PROGRAM setup`, and sees others with `incus image list`", "`PROGRAM setup` makes VALUE, `incus image list` shows others"},
	fault.SetUpHost: {"a human runs `sudo PROGRAM setup`, and `PROGRAM doctor` where Incus is on another machine",
		"run `sudo PROGRAM setup`, and `PROGRAM doctor` where Incus is on another machine"},
	fault.JoinIncus: {"a human gives the user whom this server runs as the right to, with `sudo usermod -aG incus-admin USER`",
		"`sudo usermod -aG incus-admin $USER` gives it: sign in anew then; who is in that group can do on this machine what root can (`PROGRAM setup --service` gives less)"},
	fault.LookAtIncus:   {"a human runs `PROGRAM setup`, which starts it, or `PROGRAM doctor`, which says why", "run `PROGRAM setup`, which starts it, or `PROGRAM doctor`, which says why"},
	fault.TryGateway:    {"a human runs `PROGRAM doctor`, which tries it anew", "run `PROGRAM doctor`, which tries it anew"},
	fault.LookAtGateway: {"a human looks with `incus list --all-projects NAME`", "look with `incus list --all-projects NAME` and `incus console --show-log NAME`"},
	fault.TrustClient:   {"a human adds its certificate with `incus config trust add-certificate`", "add its certificate with `incus config trust add-certificate`"},
	fault.GiveNetworkBack: {"only a human gives it back, with `PROGRAM network set NAME VALUE`; go on without",
		"`PROGRAM network set NAME VALUE` gives it back"},
	fault.AllowByHuman:    {"a human can allow it with `PROGRAM network allow NAME VALUE`", "`PROGRAM network allow NAME VALUE` allows it"},
	fault.SetModeByHuman:  {"a human may set it with `PROGRAM network set NAME VALUE`", "`PROGRAM network set NAME VALUE` sets it"},
	fault.ShowGrants:      {"a human sees them with `PROGRAM network grants NAME`", "`PROGRAM network grants NAME` shows them", "the grants show them"},
	fault.DecideElsewhere: {"a human decides with `PROGRAM requests`, or on the page", "decide with `PROGRAM requests`, or on the page"},
	fault.ListRequests:    {"wait for those that you asked for", "`PROGRAM requests list` shows those that are open", "the page shows those that are open"},
	fault.SetPassphrase:   {"a human sets a passphrase with `PROGRAM approval passphrase`", "set a passphrase with `PROGRAM approval passphrase`"},
	fault.ProveAnew:       {"a human sets it up anew with `PROGRAM approval passphrase`", "set it up anew with `PROGRAM approval passphrase`"},
	fault.OpenFolder:      {"a human may name some in the policy. Without one use read_file and write_file", "name some in the policy (files.host_folders)"},
}

// Hint is what to do, in the audience's words; empty where there is nothing.
func Hint(h fault.Hint, to Audience) string {
	all := hints[h.Action]
	if to == Member {
		to = Terminal
		if slices.Contains(operated, h.Action) {
			to = Agent
		}
	}
	words := all[to]
	if words == "" {
		words = all[Terminal]
	}
	name := h.Name
	if name == "" {
		name = "NAME"
	}
	return strings.NewReplacer("PROGRAM", program.Name, "NAME:LABEL", "NAME:LABEL", "NAME", name, "VALUE", h.Value).Replace(words)
}

// Error says what is wrong, and what to do, in the audience's words.
func Error(err error, to Audience) string {
	parts := []string{err.Error()}
	for _, h := range fault.Hints(err) {
		if words := Hint(h, to); words != "" && !slices.Contains(parts, words) {
			parts = append(parts, words)
		}
	}
	if cause := fault.Cause(err); cause != nil && to == Terminal {
		parts[0] += fmt.Sprintf(" (%v)", cause) // who is at a terminal operates the host
	}
	return strings.Join(parts, "; ")
}
