package aside

import "context"

// awaitFirst waits while the first connections to the servers of slots are being made. Without it:
//
//  1. a load begins while there is no connection, so it reads nothing in Redis and takes no lease;
//  2. there is a connection;
//  3. a caller comes. A load that has begun without Redis is not shared once Redis is there: the caller begins another one, and the
//     value of the first one is stored nowhere.
func (c *Cache) awaitFirst(ctx context.Context, slots ...*slot) {
	if c.store == nil || !c.store.Connecting() {
		return
	}
	var names []string
	for _, s := range slots {
		names = append(append(names, s.key), s.tags...)
	}
	c.store.AwaitFirst(ctx, c.closes, names...)
}

// awaitServers is awaitFirst for what is about tags, or about all that there is in Redis.
func (c *Cache) awaitServers(ctx context.Context, tags ...string) {
	if c.store != nil && c.store.Connecting() {
		c.store.AwaitFirst(ctx, c.closes, tags...)
	}
}
