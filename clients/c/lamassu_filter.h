/* Lamassu revocation filters for devices that cannot hold a CRL.
 *
 * One header, C99, no allocation, no dependency: it reads a filter (and a delta to it) where it
 * lies in memory and says of a certificate whether it is revoked, good, or not covered. What a
 * filter says counts only once its signature was verified with the CA's public key: give
 * lamassu_filter_open a function that does so with the device's own library.
 *
 *   struct lamassu_filter filter;
 *   if (lamassu_filter_open(&filter, octets, length, ca_spki_sha256, verify, &ca_key) != 0) stop();
 *   switch (lamassu_filter_judge(&filter, NULL, serial, serial_length, not_before, now)) ...
 *
 * Format and algorithm: src/lamassu/kernel/revocation_filter.py says them; the platform's tests
 * compare this header with it. License: Apache-2.0.
 */
#ifndef LAMASSU_FILTER_H
#define LAMASSU_FILTER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum lamassu_verdict { LAMASSU_GOOD = 0, LAMASSU_REVOKED = 1, LAMASSU_NOT_COVERED = 2 };

enum lamassu_fault {
    LAMASSU_OK = 0,
    LAMASSU_MALFORMED = -1,        /* not a filter, or cut off */
    LAMASSU_OTHER_ISSUER = -2,     /* another CA's */
    LAMASSU_BAD_SIGNATURE = -3
};

/* Verifies `signature` over `message` with the CA's key; answers 0 if it is right. */
typedef int (*lamassu_verify)(const uint8_t *message, size_t length, const uint8_t *signature,
                              size_t signature_length, void *context);

struct lamassu_ribbon {
    const uint8_t *columns;
    uint32_t length; /* in bits */
    uint8_t bits;    /* columns */
};

struct lamassu_filter {
    uint64_t number, base, this_update, next_update, covered_until, log_size;
    const uint8_t *issuer, *salt, *changes;
    uint32_t change_count;
    struct lamassu_ribbon first, second;
};

/* --- SHA-256 (FIPS 180-4) ------------------------------------------------------------------ */

struct lamassu_sha256 {
    uint32_t state[8];
    uint8_t block[64];
    size_t filled;
    uint64_t octets;
};

static inline uint32_t lamassu_rotated(uint32_t x, int n) { return x >> n | x << (32 - n); }

static inline void lamassu_sha256_block(struct lamassu_sha256 *sha) {
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2};
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++) {
        const uint8_t *p = sha->block + 4 * i;
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t a = lamassu_rotated(w[i - 15], 7) ^ lamassu_rotated(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = lamassu_rotated(w[i - 2], 17) ^ lamassu_rotated(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(v, sha->state, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = lamassu_rotated(v[4], 6) ^ lamassu_rotated(v[4], 11) ^ lamassu_rotated(v[4], 25);
        uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
        uint32_t s0 = lamassu_rotated(v[0], 2) ^ lamassu_rotated(v[0], 13) ^ lamassu_rotated(v[0], 22);
        uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) sha->state[i] += v[i];
    sha->filled = 0;
}

static inline void lamassu_sha256_begin(struct lamassu_sha256 *sha) {
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(sha->state, start, sizeof start);
    sha->filled = 0;
    sha->octets = 0;
}

static inline void lamassu_sha256_add(struct lamassu_sha256 *sha, const uint8_t *data, size_t n) {
    sha->octets += n;
    while (n--) {
        sha->block[sha->filled++] = *data++;
        if (sha->filled == 64) lamassu_sha256_block(sha);
    }
}

static inline void lamassu_sha256_end(struct lamassu_sha256 *sha, uint8_t digest[32]) {
    static const uint8_t one = 0x80, zero = 0;
    uint64_t bits = sha->octets * 8;
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    lamassu_sha256_add(sha, &one, 1);
    while (sha->filled != 56) lamassu_sha256_add(sha, &zero, 1);
    lamassu_sha256_add(sha, length, 8);
    for (int i = 0; i < 8; i++)
        for (int j = 0; j < 4; j++) digest[4 * i + j] = (uint8_t)(sha->state[i] >> (24 - 8 * j));
}

/* --- reading -------------------------------------------------------------------------------- */

static inline uint64_t lamassu_number(const uint8_t *p, int octets) {
    uint64_t found = 0;
    while (octets--) found = found << 8 | *p++;
    return found;
}

static inline int lamassu_ribbon_read(struct lamassu_ribbon *ribbon, const uint8_t *octets,
                                      size_t length, size_t *offset, uint8_t bits) {
    if (length - *offset < 4) return LAMASSU_MALFORMED;
    ribbon->length = (uint32_t)lamassu_number(octets + *offset, 4);
    ribbon->bits = bits;
    *offset += 4;
    uint64_t size = ((uint64_t)ribbon->length + 7) / 8 * bits;
    if (bits > 16 || (ribbon->length && ribbon->length < 128) || length - *offset < size)
        return LAMASSU_MALFORMED;
    ribbon->columns = octets + *offset;
    *offset += (size_t)size;
    return LAMASSU_OK;
}

/* Opens a filter or a delta that lies in memory and stays there. `issuer` is the SHA-256 of the
 * CA's SubjectPublicKeyInfo. Answers 0, or a lamassu_fault. */
static inline int lamassu_filter_open(struct lamassu_filter *filter, const uint8_t *octets,
                                      size_t length, const uint8_t issuer[32],
                                      lamassu_verify verify, void *context) {
    size_t offset = 97;
    if (length < offset || memcmp(octets, "LRF1", 4) || octets[4] > 1) return LAMASSU_MALFORMED;
    filter->number = lamassu_number(octets + 5, 8);
    filter->base = lamassu_number(octets + 13, 8);
    filter->this_update = lamassu_number(octets + 21, 8);
    filter->next_update = lamassu_number(octets + 29, 8);
    filter->covered_until = lamassu_number(octets + 37, 8);
    filter->log_size = lamassu_number(octets + 45, 8);
    filter->issuer = octets + 53;
    filter->salt = octets + 85;
    filter->change_count = (uint32_t)lamassu_number(octets + 93, 4);
    filter->changes = octets + offset;
    if ((filter->base != 0) != octets[4] || (filter->change_count && !octets[4]))
        return LAMASSU_MALFORMED;
    if ((length - offset) / 9 < filter->change_count) return LAMASSU_MALFORMED;
    offset += (size_t)filter->change_count * 9;
    if (length - offset < 1) return LAMASSU_MALFORMED;
    uint8_t bits = octets[offset++];
    if (lamassu_ribbon_read(&filter->first, octets, length, &offset, bits)) return LAMASSU_MALFORMED;
    if (lamassu_ribbon_read(&filter->second, octets, length, &offset, 1)) return LAMASSU_MALFORMED;
    if (memcmp(filter->issuer, issuer, 32)) return LAMASSU_OTHER_ISSUER;
    if (verify(octets, offset, octets + offset, length - offset, context))
        return LAMASSU_BAD_SIGNATURE;
    return LAMASSU_OK;
}

/* --- asking --------------------------------------------------------------------------------- */

static inline void lamassu_filter_digest(const struct lamassu_filter *filter, uint8_t level,
                                         const uint8_t *serial, size_t length, uint8_t digest[32]) {
    struct lamassu_sha256 sha;
    lamassu_sha256_begin(&sha);
    lamassu_sha256_add(&sha, &level, 1);
    lamassu_sha256_add(&sha, filter->salt, 8);
    lamassu_sha256_add(&sha, filter->issuer, 32);
    lamassu_sha256_add(&sha, serial, length);
    lamassu_sha256_end(&sha, digest);
}

static inline uint32_t lamassu_ribbon_value(const struct lamassu_ribbon *ribbon,
                                            const uint8_t digest[32]) {
    if (!ribbon->length) return 0;
    uint64_t start = lamassu_number(digest, 8) % (ribbon->length - 127u);
    size_t octets = ((size_t)ribbon->length + 7) / 8;
    uint32_t found = 0;
    for (int column = 0; column < ribbon->bits; column++) {
        const uint8_t *bits = ribbon->columns + (size_t)column * octets;
        uint32_t parity = 0;
        for (int i = 0; i < 128; i++) {
            uint64_t at = start + (uint64_t)i;
            uint32_t coefficient = digest[23 - i / 8] >> (i % 8) & 1u;
            if (i == 0) coefficient = 1;
            parity ^= coefficient & (bits[at >> 3] >> (at & 7) & 1u);
        }
        found |= parity << column;
    }
    return found;
}

static inline int lamassu_filter_revoked(const struct lamassu_filter *filter, const uint8_t *serial,
                                         size_t length) {
    uint8_t digest[32];
    if (!filter->second.length) return 0;
    lamassu_filter_digest(filter, 1, serial, length, digest);
    uint32_t mask = ((uint32_t)1 << filter->first.bits) - 1;
    if (lamassu_ribbon_value(&filter->first, digest) != ((uint32_t)lamassu_number(digest + 24, 4) & mask))
        return 0;
    lamassu_filter_digest(filter, 2, serial, length, digest);
    return (int)lamassu_ribbon_value(&filter->second, digest);
}

/* The status of a change, or -1. */
static inline int lamassu_filter_changed(const struct lamassu_filter *delta, const uint8_t *serial,
                                         size_t length) {
    uint8_t digest[32];
    lamassu_filter_digest(delta, 3, serial, length, digest);
    uint32_t low = 0, high = delta->change_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const uint8_t *entry = delta->changes + (size_t)middle * 9;
        int order = memcmp(digest, entry, 8);
        if (!order) return entry[8] != 0;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return -1;
}

/* The status of a certificate of the filter's CA. `serial` are the octets of its serial number;
 * times are Unix seconds. `delta` may be NULL; one of another filter is not believed. */
static inline enum lamassu_verdict lamassu_filter_judge(const struct lamassu_filter *filter,
                                                        const struct lamassu_filter *delta,
                                                        const uint8_t *serial, size_t length,
                                                        uint64_t not_before, uint64_t now) {
    const struct lamassu_filter *newest = delta ? delta : filter;
    while (length && !*serial) serial++, length--; /* the sign of a DER INTEGER */
    if (filter->base || (delta && delta->base != filter->number)) return LAMASSU_NOT_COVERED;
    if (now < newest->this_update || now >= newest->next_update) return LAMASSU_NOT_COVERED;
    if (not_before <= filter->covered_until) {
        int changed = delta ? lamassu_filter_changed(delta, serial, length) : -1;
        if (changed >= 0) return changed ? LAMASSU_REVOKED : LAMASSU_GOOD;
        return lamassu_filter_revoked(filter, serial, length) ? LAMASSU_REVOKED : LAMASSU_GOOD;
    }
    if (not_before <= newest->covered_until)
        return lamassu_filter_revoked(newest, serial, length) ? LAMASSU_REVOKED : LAMASSU_GOOD;
    return LAMASSU_NOT_COVERED;
}

#endif
