package asidetest

import "github.com/gatewayz/aside/internal/redistest"

// Allowing is that of redistest, for the tests that know only this package.
var Allowing = redistest.Allowing
