package redistest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	// Slots is the number of hash slots of a cluster.
	Slots = 16384

	// migrateBatch is how many keys move in one MIGRATE, which blocks both nodes.
	migrateBatch = 10

	// migrateTimeout is how long in ms a MIGRATE may wait for the other node.
	migrateTimeout = "10000"
)

// Slot returns the hash slot of a key: CRC16 of its hash tag, or of all of it, modulo 16384
// (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).
func Slot(key string) int {
	if _, after, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(after, "}"); ok && tag != "" {
			key = tag
		}
	}
	crc := uint16(0) // CRC-16/XMODEM
	for _, b := range []byte(key) {
		crc ^= uint16(b) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % Slots
}

// Migration is a slot on its way from one primary to another. From still owns it, but answers ASK for each key that it
// does not have; To answers MOVED, but to ASKING. A command on several keys that are not all on the same side is
// answered TRYAGAIN.
type Migration struct {
	Slot     int
	From, To *Server

	c *Cluster
}

// BeginMigration opens the migration of a slot from the primary that owns it. No key moves yet.
func (c *Cluster) BeginMigration(slot int, to *Server) *Migration {
	c.t.Helper()
	m := &Migration{Slot: slot, From: c.OwnerOf(slot), To: to, c: c}
	n := strconv.Itoa(slot)
	if m.From == m.To {
		c.t.Errorf("redistest: slot %d is there already", slot)
		return m
	}
	// This order: the other way round, an ASK could lead to a node that does not expect it.
	for _, step := range []struct {
		at   *Server
		args []string
	}{
		{m.To, []string{"CLUSTER", "SETSLOT", n, "IMPORTING", c.id(m.From)}},
		{m.From, []string{"CLUSTER", "SETSLOT", n, "MIGRATING", c.id(m.To)}},
	} {
		if _, err := step.at.Do(step.args...); err != nil {
			c.t.Errorf("redistest: migration of slot %d: %v", slot, err)
		}
	}
	return m
}

// Move moves keys of the slot, or all of them where none is named. Those that do not exist are left out.
func (m *Migration) Move(keys ...string) {
	m.c.t.Helper()
	if err := m.move(keys); err != nil {
		m.c.t.Errorf("redistest: migration of slot %d: %v", m.Slot, err)
	}
}

// Finish moves the keys that are left and gives the slot to its new owner. It returns when all running nodes agree on
// it.
func (m *Migration) Finish() {
	m.c.t.Helper()
	if err := m.finish(); err != nil {
		m.c.t.Errorf("redistest: migration of slot %d: %v", m.Slot, err)
	}
}

// MigrateSlot moves a slot with its keys to another primary, while clients may use them.
func (c *Cluster) MigrateSlot(slot int, to *Server) {
	c.t.Helper()
	c.BeginMigration(slot, to).Finish()
}

// MigrateSlots moves n slots that hold keys, each to the primary that follows its owner in the order of
// [Cluster.Primaries], and returns them. Fewer are an error.
func (c *Cluster) MigrateSlots(n int) []int {
	c.t.Helper()
	primaries := c.Primaries()
	var moved []int
	for i, s := range primaries {
		slots, err := s.filledSlots()
		if err != nil {
			c.t.Errorf("redistest: %v", err)
		}
		for _, slot := range slots {
			// An equal part from each, and the rest from the last.
			if len(moved) < n*(i+1)/len(primaries) && !slices.Contains(moved, slot) {
				c.MigrateSlot(slot, primaries[(i+1)%len(primaries)])
				moved = append(moved, slot)
			}
		}
	}
	if len(moved) < n {
		c.t.Errorf("redistest: MigrateSlots(%d): only %d slots with keys", n, len(moved))
	}
	return moved
}

func (m *Migration) move(keys []string) error {
	for batch := range slices.Chunk(keys, migrateBatch) {
		if err := m.migrate(batch); err != nil {
			return err
		}
	}
	for len(keys) == 0 {
		reply, err := m.From.Do("CLUSTER", "GETKEYSINSLOT", strconv.Itoa(m.Slot), strconv.Itoa(migrateBatch))
		if err != nil {
			return err
		}
		var batch []string
		for _, key := range reply.([]any) {
			batch = append(batch, key.(string))
		}
		if len(batch) == 0 {
			return nil
		}
		if err := m.migrate(batch); err != nil {
			return err
		}
	}
	return nil
}

func (m *Migration) migrate(keys []string) error {
	args := []string{"MIGRATE", "127.0.0.1", strconv.Itoa(m.To.port), "", "0", migrateTimeout}
	if m.To.password != "" {
		args = append(args, "AUTH", m.To.password)
	}
	_, err := m.From.Do(append(append(args, "KEYS"), keys...)...)
	return err
}

func (m *Migration) finish() error {
	if err := m.move(nil); err != nil {
		return err
	}
	// The new owner first: until it knows, the old one sends clients there and it sends them back.
	others := slices.DeleteFunc(m.c.Primaries(), func(s *Server) bool { return s == m.To || s == m.From || !s.runs() })
	id, n := m.c.id(m.To), strconv.Itoa(m.Slot)
	for _, s := range append([]*Server{m.To, m.From}, others...) {
		if _, err := s.Do("CLUSTER", "SETSLOT", n, "NODE", id); err != nil {
			return fmt.Errorf("%s: %w", s.Addr(), err)
		}
	}
	m.c.await("all to know the new owner of slot "+n, func() error {
		return m.c.agree(func(v view) error {
			for _, r := range v[id].slots {
				if r[0] <= m.Slot && m.Slot <= r[1] {
					return nil
				}
			}
			return errors.New("does not know the new owner")
		})
	})
	return nil
}

// filledSlots returns the slots of the server's keys.
func (s *Server) filledSlots() ([]int, error) {
	var slots []int
	cursor := "0"
	for {
		reply, err := s.Do("SCAN", cursor, "COUNT", "1000")
		if err != nil {
			return nil, err
		}
		page := reply.([]any)
		for _, key := range page[1].([]any) {
			slots = append(slots, Slot(key.(string)))
		}
		if cursor = page[0].(string); cursor == "0" {
			slices.Sort(slots)
			return slices.Compact(slots), nil
		}
	}
}
