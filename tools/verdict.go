package tools

import (
	"context"
	"encoding/json"
	"errors"

	"pixels/policy"
	"pixels/sandbox/manager"
)

// Verdict returns what the policy says of a call, without doing it. The caller of the session must be on trial.
func Verdict(ctx context.Context, s Session, tool string, arguments json.RawMessage) (policy.Verdict, error) {
	if err := policy.Verb(tool).Check(); err != nil {
		return policy.Verdict{}, err
	}
	r := Call(ctx, s, tool, arguments)
	var trial manager.Trial
	if errors.As(r.err, &trial) {
		return trial.Verdict, nil
	}
	// It is refused before the policy is asked.
	return policy.Verdict{}, errors.New(r.Text)
}
