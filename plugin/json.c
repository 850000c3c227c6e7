// SPDX-License-Identifier: GPL-2.0-only
#include <inttypes.h>
#include <stddef.h>

#include "json.h"

/* Bytes of the character at s, which may be cut short or wrong: then 0 */
static unsigned int utf8_len(const unsigned char *s)
{
	unsigned int n, i;
	uint32_t c;

	if (s[0] < 0x80)
		return 1;
	n = s[0] >= 0xf0 && s[0] < 0xf8 ? 4 :
	    s[0] >= 0xe0 && s[0] < 0xf0 ? 3 :
	    s[0] >= 0xc0 && s[0] < 0xe0 ? 2 :
					  0;
	if (!n)
		return 0;

	c = s[0] & (0x7fU >> n);
	for (i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}

	/* longer than it needs to be, a half of a pair, or none at all */
	if (c < (n == 2 ? 0x80U : n == 3 ? 0x800U :
					   0x10000U) ||
	    (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
		return 0;
	return n;
}

static void put_string(FILE *out, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	fputc('"', out);
	while (*s) {
		unsigned int n = utf8_len(s);

		if (!n)
			fputs("\\ufffd", out);
		else if (*s < 0x20 || *s == 0x7f)
			fprintf(out, "\\u%04x", *s);
		else if (*s == '"' || *s == '\\')
			fprintf(out, "\\%c", *s);
		else
			fwrite(s, 1, n, out);
		s += n ? n : 1;
	}
	fputc('"', out);
}

/* What comes before a value */
static void begin(struct json *j, const char *key)
{
	if (j->depth && !j->first)
		fputs(j->line_depth ? ", " : ",", j->out);
	if (j->depth && !j->line_depth)
		fprintf(j->out, "\n%*s", (int)j->depth, "");
	j->first = 0;
	if (key) {
		put_string(j->out, key);
		fputs(": ", j->out);
	}
}

void json_put_open(struct json *j, const char *key, char bracket)
{
	begin(j, key);
	fputc(bracket, j->out);
	j->depth++;
	j->first = 1;
}

void json_put_open_line(struct json *j, const char *key, char bracket)
{
	json_put_open(j, key, bracket);
	if (!j->line_depth)
		j->line_depth = j->depth;
}

void json_put_close(struct json *j, char bracket)
{
	if (!j->line_depth && !j->first)
		fprintf(j->out, "\n%*s", (int)j->depth - 1, "");
	if (j->line_depth == j->depth)
		j->line_depth = 0;
	j->depth--;
	j->first = 0;
	fputc(bracket, j->out);
	if (!j->depth)
		fputc('\n', j->out);
}

void json_put_number(struct json *j, const char *key, uint64_t value)
{
	begin(j, key);
	fprintf(j->out, "%" PRIu64, value);
}

void json_put_fixed(struct json *j, const char *key, uint64_t value, unsigned int digits)
{
	uint64_t unit = 1;
	unsigned int i;

	for (i = 0; i < digits; i++)
		unit *= 10;
	begin(j, key);
	fprintf(j->out, "%" PRIu64 ".%0*" PRIu64, value / unit, (int)digits, value % unit);
}

void json_put_null(struct json *j, const char *key)
{
	begin(j, key);
	fputs("null", j->out);
}

void json_put_string(struct json *j, const char *key, const char *value)
{
	if (!value) {
		json_put_null(j, key);
		return;
	}
	begin(j, key);
	put_string(j->out, value);
}
