package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"pixels/internal/fault"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/ledger"
)

// askForNetwork makes a call about what a sandbox may reach as an owner, by the service, and shows that then. What a human must decide is
// asked for.
func (v *verbs) askForNetwork(ctx context.Context, name string, verb policy.Verb, arguments map[string]any, asJSON bool) error {
	var done struct {
		Requests  []view.Request `json:"requests"`
		Unchanged []string       `json:"unchanged"`
	}
	if verb != policy.VerbEgress {
		if err := v.call(ctx, verb, arguments, &done); err != nil {
			return err
		}
		arguments = map[string]any{"name": name}
	}
	service, err := v.service()
	if err != nil {
		return err
	}
	var now view.Egress
	text, err := service.CallForPeople(ctx, string(policy.VerbEgress), arguments, &now)
	switch {
	case err != nil:
		return err
	case asJSON:
		err = v.printJSON(now)
	default:
		if len(done.Unchanged) > 0 {
			fmt.Fprintf(v.out, "not allowed before: %s\n", strings.Join(done.Unchanged, ", "))
		}
		_, err = fmt.Fprintln(v.out, text)
	}
	var open []string
	for _, r := range done.Requests {
		switch {
		case !r.State.Ended():
			open = append(open, r.ID)
		case r.State != ledger.RequestGranted:
			err = errors.Join(err, fault.Errorf(fault.Denied, fault.Hint{}, "%s is %s %s", r.Domain, r.State, r.Answer))
		}
	}
	return cmp.Or(err, v.asked(open))
}
