package tools

import (
	"context"
	"fmt"
	"strings"
	"time"

	"pixels/internal/view"
	"pixels/policy"
)

type createCheckpointInput struct {
	Name        string `json:"name"`
	Label       string `json:"label,omitempty" jsonschema:"letters, digits, dots, dashes and underscores; made up when left out"`
	Description string `json:"description,omitempty" jsonschema:"what is in it, for whoever picks one later"`
}

type createCheckpointOutput struct {
	Checkpoint  string    `json:"checkpoint" jsonschema:"NAME:LABEL, as clone_sandbox and create_sandbox take it"`
	Description string    `json:"description,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
}

var createCheckpoint = define(Tool{
	Verb: policy.VerbCreateCheckpoint, Title: "Create a checkpoint", Long: true,
	Description: "Keeps the file system of a sandbox as it is now, under a label, for clone_sandbox and create_sandbox. Processes and memory are not in it. Takes a moment, and the sandbox goes on running.",
}, func(ctx context.Context, s Session, in createCheckpointInput) (createCheckpointOutput, Result, error) {
	made, err := s.Manager.CreateCheckpoint(ctx, s.Caller, in.Name, in.Label, in.Description)
	out := createCheckpointOutput{in.Name + ":" + made.Label, made.Description, made.CreatedAt}
	return out, Result{Text: "created checkpoint " + out.Checkpoint}, err
})

type listCheckpointsInput struct {
	Name string `json:"name"`
}

type listCheckpointsOutput struct {
	Checkpoints []view.Checkpoint `json:"checkpoints" jsonschema:"the oldest first"`
}

var listCheckpoints = define(Tool{
	Verb: policy.VerbListCheckpoints, Title: "List checkpoints", ReadOnly: true, Idempotent: true,
	Description: "Lists the checkpoints of a sandbox, the oldest first. NAME:LABEL names one to other tools.",
}, func(ctx context.Context, s Session, in listCheckpointsInput) (listCheckpointsOutput, Result, error) {
	list, err := s.Manager.Checkpoints(ctx, s.Caller, in.Name)
	if err != nil || len(list) == 0 {
		return listCheckpointsOutput{[]view.Checkpoint{}}, Result{Text: in.Name + " has no checkpoint; create_checkpoint makes one"}, err
	}
	var out listCheckpointsOutput
	lines := []string{fmt.Sprintf("%s has %s:", in.Name, view.Count(len(list), "checkpoint", "checkpoints"))}
	for _, c := range list {
		out.Checkpoints = append(out.Checkpoints, view.CheckpointOf(c))
		lines = append(lines, view.CheckpointLine(in.Name, c))
	}
	return out, Result{Text: strings.Join(lines, "\n")}, nil
})

type checkpointInput struct {
	Name  string `json:"name"`
	Label string `json:"label" jsonschema:"of the checkpoint"`
}

var restoreCheckpoint = define(Tool{
	Verb: policy.VerbRestoreCheckpoint, Title: "Restore a checkpoint", Destructive: true, Long: true, Tasks: true,
	Description: "Puts the files of a sandbox back to what they were at a checkpoint and starts it anew: what ran in it ends, and files written since are lost. " +
		"All checkpoints stay, later ones too. Its address may be another one afterwards.",
}, func(ctx context.Context, s Session, in checkpointInput) (view.Sandbox, Result, error) {
	box, err := s.Manager.Restore(ctx, s.Caller, in.Name, in.Label)
	return view.SandboxOf(box), Result{Text: fmt.Sprintf("restored %s:%s; %s", in.Name, in.Label, view.SandboxLine(box))}, err
})

type deletedCheckpoint struct {
	Deleted string `json:"deleted" jsonschema:"NAME:LABEL"`
}

var deleteCheckpoint = define(Tool{
	Verb: policy.VerbDeleteCheckpoint, Title: "Delete a checkpoint", Destructive: true,
	Description: "Deletes a checkpoint for good. The sandbox, its other checkpoints and clones made from this one stay.",
}, func(ctx context.Context, s Session, in checkpointInput) (deletedCheckpoint, Result, error) {
	out := deletedCheckpoint{in.Name + ":" + in.Label}
	return out, Result{Text: "deleted checkpoint " + out.Deleted}, s.Manager.DeleteCheckpoint(ctx, s.Caller, in.Name, in.Label)
})
