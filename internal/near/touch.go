package near

// SomeTags returns up to n of the tags that suit, whose generations are known and good: all of them where there are no more, else
// others each time. It looks at no more than a few times as many.
func (c *Cache) SomeTags(n int, suits func(tag string) bool) (tags []string) {
	first := c.lookedAt.Add(1)
	for i := range uint64(shards) {
		s := &c.shards[(first+i)%shards]
		s.mu.Lock()
		looked := 0
		for tag, g := range s.generations.All() { // which begins anywhere
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
