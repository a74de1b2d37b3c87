package asidetest

import (
	"os"
	"strconv"
	"time"

	"github.com/gatewayz/aside"
)

// AtLength reports whether the races are to be run as `make races` does: long.
func AtLength() bool { return os.Getenv("ASIDE_RACES") == "long" }

func Rounds(short, long int) int {
	if AtLength() {
		return long
	}
	return short
}

func LanePolicy(lane int) *aside.Policy {
	name := "lane" + strconv.Itoa(lane)
	return &aside.Policy{Name: name, Category: name, Label: "lanes", TTL: time.Hour}
}
