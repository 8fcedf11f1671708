package manager

import "pixels/policy/ledger"

// BeginOperation puts down that a call goes on as an operation; ledger.ErrNone where nothing is kept.
func (m *Manager) BeginOperation(o ledger.Operation) error { return m.gate.store.BeginOperation(o) }

// BeatOperation says that it goes on, and tells whether its owner wants it ended.
func (m *Manager) BeatOperation(id string) (cancel bool, err error) {
	return m.gate.store.BeatOperation(id)
}

// EndOperation puts down what became of it.
func (m *Manager) EndOperation(id, result, text string) error {
	return m.gate.store.EndOperation(id, result, text)
}

// Operation returns an owner's; ledger.ErrNoOperation.
func (m *Manager) Operation(owner, id string) (ledger.Operation, error) {
	return m.gate.store.Operation(owner, id)
}

// CancelOperation asks the server in which an owner's runs to end it.
func (m *Manager) CancelOperation(owner, id string) error {
	return m.gate.store.CancelOperation(owner, id)
}
