// Package wire turns typed values into the bytes that aside keeps in Redis, and back.
//
// An envelope holds what a reader must know before it may trust a payload. A codec turns the payload into a Go value. Decoding
// of any bytes returns an error and never panics, and allocates no more than its limits allow.
//
// # The envelope, version 1
//
// All integers are little endian. Times are microseconds since the Unix epoch on the clock of the Redis primary that
// holds the key.
//
//	offset  size  field
//	     0     2  magic, C1 A5
//	     2     1  version, 1
//	     3     1  flags: bit 0 compressed with s2, bit 1 negative, bit 2 chunked: the payload is a manifest, see [ManifestLen],
//	              bit 3 the tags section has a policy, bit 4 negative with a payload: the text of its error,
//	              bit 5 the loader or the caller has chosen the TTL, and not the policy,
//	              bit 6 extended: the tags section ends with records, see below
//	     4     4  codec: [ID] of the codec, 0 in a negative entry
//	     8     8  load start
//	    16     8  fresh until
//	    24     8  dead until
//	    32     4  load duration, milliseconds
//	    36     4  raw length: payload before compression
//	    40     4  stored length: payload as it follows
//	    44     4  length of the tags section
//	    48    12  nonce
//	    60    16  first half of the SHA-256 of the full key
//	    76     4  CRC-32C of all other bytes of the value; of an extended entry in one piece: of header and tags section
//	    80     -  tags section: count (2), then for each tag: name length (2), name, generation (8); with bit 3 the policy (8);
//	              with bit 6 records to the end: type (1), length (2), content
//	     -     -  payload
//
// The records of an extended entry are 1 the ETag, 2 until when the value may be served at once after its TTL (8), and 3 the CRC-32C of the
// stored payload, of a chunked value that of all chunks together (4). The third is always there. A reader skips records that it does not know,
// and Restamp leaves them out. What a reader must know needs a flag.
//
// An extended entry can be declared valid for longer by who has not read its payload: [Restamp] rewrites everything before the payload.
//
// The positions of magic and version are fixed for all versions to come. So is the rule that a build refuses a version or a flag
// that it does not know. A later version may lay out everything else differently, so a reader checks version and flags before
// anything else.
//
// The checksum and the key hash detect damaged entries and entries of another key. They are not keyed: every client that can write to
// Redis can write entries.
package wire
