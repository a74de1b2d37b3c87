package migrate_test

import (
	"testing"

	"github.com/gatewayz/aside/internal/asidetest"
)

func TestMain(m *testing.M) { asidetest.Main(m) }
