package server

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"
)

// sealedFor is how long a question that was put to a client may be answered by its next call.
const sealedFor = 10 * time.Minute

// seal closes what a client is to hand back with the answers to questions, so that only what was asked, of whom, and not long ago, is
// answered by it. It is this process's: who was asked by another one is asked again.
type seal struct{ cipher.AEAD }

// put is what was put to a client.
type put struct {
	Owner, Tool string
	IDs         []string
	Until       time.Time
}

func newSeal() seal {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	block, err := aes.NewCipher(key)
	if err == nil {
		var s seal
		if s.AEAD, err = cipher.NewGCMWithRandomNonce(block); err == nil {
			return s
		}
	}
	panic(err) // of a key of that length there is none
}

func (s seal) close(p put) string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // such a value can be written
	}
	return base64.RawURLEncoding.EncodeToString(s.Seal(nil, nil, b, nil))
}

// open tells what was put to an owner's client in a call of a tool; nothing where that isn't so, or is too long ago.
func (s seal) open(state, owner, tool string) (ids []string) {
	sealed, err := base64.RawURLEncoding.DecodeString(state)
	if err != nil {
		return nil
	}
	b, err := s.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil
	}
	var p put
	if json.Unmarshal(b, &p) != nil || p.Owner != owner || p.Tool != tool || time.Now().After(p.Until) {
		return nil
	}
	return p.IDs
}

// among keeps of some answers those to questions that were put.
func among[T any](answers map[string]T, ids []string) map[string]T {
	out := map[string]T{}
	for id, answer := range answers {
		if slices.Contains(ids, id) {
			out[id] = answer
		}
	}
	return out
}
