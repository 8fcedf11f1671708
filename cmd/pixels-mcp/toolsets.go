package main

import (
	"github.com/spf13/pflag"

	"pixels/policy"
)

// offered are the flags that say which tools there are for a client.
type offered struct {
	readOnly bool
	sets     []string
}

func (o *offered) flags(f *pflag.FlagSet) {
	f.BoolVar(&o.readOnly, "read-only", false, "offer only the tools that change nothing")
	f.StringSliceVar(&o.sets, "toolsets", nil, "offer only these `sets` of tools: sandboxes, checkpoints, exec, files, egress, tokens")
}

// tools are those that the flags leave; nil is all.
func (o *offered) tools() (*[]policy.Verb, error) {
	var only *[]policy.Verb
	if len(o.sets) > 0 {
		some, err := policy.ParseToolsets(o.sets)
		if err != nil {
			return nil, usageError{err}
		}
		only = &some
	}
	if o.readOnly {
		only = policy.Both(only, &policy.ReadOnly)
	}
	return only, nil
}
