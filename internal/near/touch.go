package near

// SomeTags returns up to n tags that suit and whose generations are known and valid. It returns all of them if there are no more than n, and
// otherwise other tags each time. It inspects only a few times as many tags.
func (c *Cache) SomeTags(n int, suits func(tag string) bool) (tags []string) {
	first := c.firstTag.Add(1)
	for i := range uint64(shards) {
		s := &c.shards[(first+i)%shards]
		s.mu.Lock()
		looked := 0
		for tag, g := range s.generations.All() { // a map iteration begins anywhere
			if looked++; len(tags) == n || looked > 4*n {
				break
			}
			if g.Valid() && suits(tag) {
				tags = append(tags, tag)
			}
		}
		s.mu.Unlock()
		if len(tags) == n {
			return tags
		}
	}
	return tags
}
