/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LSHM_JSON_H
#define LSHM_JSON_H

#include <stdint.h>
#include <stdio.h>

/*
 * Writes JSON. Commas, line breaks and the escapes of strings are taken care of; that what is
 * opened is closed is up to the caller. Errors are those of the stream: ferror().
 *
 * The names must not be libjansson's, which CRIU may be linked with: its json_string() would
 * be called instead of ours.
 */
struct json {
	FILE *out;
	unsigned int depth;
	int first;		 /* of what is open */
	unsigned int line_depth; /* at which what is open is written in one line, or 0 */
};

/* key: in an object; NULL in an array, and for what is outermost. */
void json_put_open(struct json *j, const char *key, char bracket); /* '{' or '[' */
void json_put_open_line(struct json *j, const char *key, char bracket);
void json_put_close(struct json *j, char bracket); /* '}' or ']' */
void json_put_number(struct json *j, const char *key, uint64_t value);
void json_put_fixed(struct json *j, const char *key, uint64_t value, unsigned int digits); /* value / 10^digits */
void json_put_null(struct json *j, const char *key);

/* Whatever value has in it, a valid string comes of it; what is not UTF-8 becomes U+FFFD. NULL: null. */
void json_put_string(struct json *j, const char *key, const char *value);

#endif
