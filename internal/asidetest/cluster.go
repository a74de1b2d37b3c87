package asidetest

import (
	"github.com/gatewayz/aside"
	"github.com/gatewayz/aside/internal/redistest"
)

// InClusterOf is the options for a cache on a cluster.
func InClusterOf(cluster *redistest.Cluster) aside.Options {
	o := At("")
	o.Redis.InitAddress, o.Redis.ForceSingleClient = cluster.Addrs(), false
	return o
}
