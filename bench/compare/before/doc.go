// Package before has the caching of three programs as it is with other libraries. docs/migrating.md compares it with package examples/migrate.
package before
