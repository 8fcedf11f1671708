package policy

import (
	"fmt"
	"slices"
	"time"

	"pixels/egress"
	"pixels/internal/nearest"
)

// Verb is what a call does. Each tool has one, by whose name it goes.
type Verb string

// The verbs.
const (
	VerbCreateSandbox     Verb = "create_sandbox"
	VerbCloneSandbox      Verb = "clone_sandbox"
	VerbListSandboxes     Verb = "list_sandboxes"
	VerbSetSandboxState   Verb = "set_sandbox_state"
	VerbExtendSandbox     Verb = "extend_sandbox"
	VerbRenameSandbox     Verb = "rename_sandbox"
	VerbResizeSandbox     Verb = "resize_sandbox"
	VerbDestroySandbox    Verb = "destroy_sandbox"
	VerbCreateCheckpoint  Verb = "create_checkpoint"
	VerbListCheckpoints   Verb = "list_checkpoints"
	VerbRestoreCheckpoint Verb = "restore_checkpoint"
	VerbDeleteCheckpoint  Verb = "delete_checkpoint"
	VerbExec              Verb = "exec"
	VerbWait              Verb = "wait"
	VerbReadFile          Verb = "read_file"
	VerbWriteFile         Verb = "write_file"
	VerbEditFile          Verb = "edit_file"
	VerbListFiles         Verb = "list_files"
	VerbCopyFiles         Verb = "copy_files"
	VerbAllowDomain       Verb = "allow_domain"
	VerbDenyDomain        Verb = "deny_domain"
	VerbEgress            Verb = "egress"
	VerbMintToken         Verb = "mint_token"
)

// Verbs are all of them, in the order of the tools.
var Verbs = []Verb{
	VerbCreateSandbox, VerbCloneSandbox, VerbListSandboxes, VerbSetSandboxState, VerbExtendSandbox, VerbRenameSandbox, VerbResizeSandbox, VerbDestroySandbox, VerbCreateCheckpoint, VerbListCheckpoints, VerbRestoreCheckpoint, VerbDeleteCheckpoint, VerbExec, VerbWait, VerbReadFile, VerbWriteFile, VerbEditFile, VerbListFiles, VerbCopyFiles, VerbAllowDomain, VerbDenyDomain, VerbEgress, VerbMintToken,
}

// Check tells whether there is such a verb, and if not, which one may be meant.
func (v Verb) Check() error {
	if slices.Contains(Verbs, v) {
		return nil
	}
	var names []string
	for _, known := range Verbs {
		names = append(names, string(known))
	}
	return fmt.Errorf("there is no tool %q%s", v, nearest.Hint(string(v), names))
}

// Needs are what a call would take. Those that it doesn't touch are zero.
type Needs struct {
	Sandboxes int // to be made
	CPU       int // cores, of all of them together, as Memory and Disk are, in bytes
	Memory    int64
	Disk      int64

	Image       string // to be made from
	FreeImage   string // an image that needs no leave: the one that the installation makes sandboxes from
	Checkpoints int    // to be made
	Mode        egress.Mode
	Domains     []egress.Rule // to be reached
	Denied      []egress.Rule // to be reached no more
	Lease       time.Duration
	Exec        time.Duration // how long a command may run
	Root        bool          // as root
	HostPath    string        // absolute
}
