package aside

import "context"

// awaitFirst waits while the first connection to Redis is being made, for as long as a call may wait for Redis. It returns what is left
// of that time, for the call's operations: nil where there was nothing to wait for. Those end with asks, the call's own context, or one
// without an end where they go on after their caller has left. Without it:
//
//  1. a load begins while there is no connection, so it reads nothing in Redis and takes no lease;
//  2. there is a connection;
//  3. a caller comes. A load that has begun without Redis is not shared once Redis is there: the caller begins another one, and the
//     value of the first one is stored nowhere.
func (c *Cache) awaitFirst(ctx, asks context.Context, slots ...*slot) (left context.Context, end context.CancelFunc) {
	if c.store == nil || !c.store.Connecting() || slots[0].waited {
		return nil, func() {}
	}
	var names []string
	for _, s := range slots {
		s.waited = true
		names = append(append(names, s.key), s.tags...)
	}
	left, end = c.budget(asks, slots...)
	c.store.AwaitFirst(left, ctx, c.closes, names...)
	return left, end
}

// awaitServers is awaitFirst for what is about tags, or about all that there is in Redis.
func (c *Cache) awaitServers(ctx context.Context, tags ...string) (left context.Context, end context.CancelFunc) {
	if c.store == nil || !c.store.Connecting() {
		return nil, func() {}
	}
	left, end = c.store.Budget(context.WithoutCancel(ctx), 0, max(1, len(tags)))
	c.store.AwaitFirst(left, ctx, c.closes, tags...)
	return left, end
}

// orBudget is what awaitFirst has left of a call's time for Redis, or else all of it.
func (c *Cache) orBudget(ctx, left context.Context, slots ...*slot) (context.Context, context.CancelFunc) {
	if left != nil {
		return left, func() {}
	}
	return c.budget(ctx, slots...)
}
