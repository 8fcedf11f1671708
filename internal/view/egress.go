package view

import (
	"pixels/internal/fault"
	"pixels/policy"
	"pixels/sandbox"
)

// NotEnforced says why an egress is not enforced, and what to do; empty when it is.
func NotEnforced(e sandbox.Egress, to Audience) string { return with(e.Why, e.Mend, to) }

// Gap says which promise is not kept on this host, and what to do; empty when all are.
func Gap(e sandbox.Egress, to Audience) string {
	return with(e.Gap, fault.Hint{Action: fault.SetUpHost}, to)
}

// Denied says what a command was denied while it ran, and what to do; empty when nothing was.
func Denied(all []sandbox.Denial, to Audience) string {
	return with(deniedText(all), fault.Hint{Action: fault.AskForDomain}, to)
}

// Reason says why the policy decided so, and what to do.
func Reason(v policy.Verdict, to Audience) string { return with(v.Reason, v.Hint, to) }

// with adds to a text, unless it is empty, what to do.
func with(text string, h fault.Hint, to Audience) string {
	words := Hint(h, to)
	if text == "" || words == "" {
		return text
	}
	return text + "; " + words
}
