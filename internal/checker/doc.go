// Checker runs real processes under faults and checks what they saw.
package main
