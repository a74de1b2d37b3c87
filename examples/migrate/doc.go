// Package migrate has the caching of three programs, after their move to aside. docs/migrating.md has each of them before and after.
package migrate
