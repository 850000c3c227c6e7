/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FAKE_PEER_H
#define FAKE_PEER_H

#include <stdbool.h>
#include <stdint.h>

/*
 * A page server that speaks version 2 in the role PS_ROLE_SHMEM and misbehaves as it
 * is told; and, for the code under test, what CRIU has to speak with it.
 */
enum peer_does {
	PEER_SERVE,
	PEER_CLOSE, /* closes the connection after so many bytes of answers */
	PEER_RESET, /* resets it */
	PEER_STALL, /* says nothing more after so many bytes of answers */
	PEER_REFUSE_HELLO,
	PEER_REFUSE,  /* instead of answering question number at */
	PEER_LIE_CMD, /* these in the header of answer number at */
	PEER_LIE_SHMID,
	PEER_LIE_OFF,
	PEER_LIE_MORE_PAGES,
	PEER_LIE_FEWER_PAGES,
	PEER_LIE_NO_PAGES,
};

struct peer_conn {
	enum peer_does does;
	uint64_t at;
	unsigned int gather; /* it answers nothing before it has so many questions, and peer->open is set */
};

#define PEER_CONNS     64
#define PEER_QUESTIONS 4096

/* Shared by all processes */
struct peer {
	uint16_t port;
	struct peer_conn conns[PEER_CONNS]; /* what becomes of the first, the second... */
	volatile unsigned int open;	    /* see gather */

	/* what the server has seen */
	volatile unsigned int nr_conns, nr_ended, nr_questions, nr_farewells;
	struct {
		unsigned int conn;
		uint64_t shmid, off;
		uint32_t nr_pages;
	} questions[PEER_QUESTIONS];
};

extern struct peer *peer;

/* Makes peer, to be told what to do. */
void peer_prepare(void);

/* Starts the server, which ends with the test. Sets opts. */
void peer_start(void);
void peer_stop(void);

/* Byte off of object shmid there, never 0 */
unsigned char peer_byte(uint64_t shmid, uint64_t off);

#endif
