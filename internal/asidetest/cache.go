package asidetest

import (
	"context"
	"sync"
)

// Signalling closes waited when somebody begins to wait for the context.
type Signalling struct {
	context.Context
	once   sync.Once
	Waited chan struct{}
}

func (s *Signalling) Done() <-chan struct{} {
	s.once.Do(func() { close(s.Waited) })
	return s.Context.Done()
}
