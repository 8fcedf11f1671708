package tools

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"pixels/policy"
	"pixels/sandbox/manager"
)

// Verdict returns what the policy says of a call, without doing it. The caller of the session must be on trial.
func Verdict(ctx context.Context, s Session, tool string, arguments json.RawMessage) (policy.Verdict, error) {
	all := All()
	i := slices.IndexFunc(all, func(t Tool) bool { return t.Name == tool })
	if i < 0 {
		return policy.Verdict{}, policy.Verb(tool).Check()
	}
	r := all[i].Call(ctx, s, arguments)
	var trial manager.Trial
	if errors.As(r.err, &trial) {
		return trial.Verdict, nil
	}
	// It is refused before the policy is asked.
	return policy.Verdict{}, errors.New(r.Text)
}
