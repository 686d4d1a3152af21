/* Asks lamassu_filter.h of each line "serial not_before" of standard input; prints verdicts. */
#include <stdio.h>
#include <stdlib.h>
#include "lamassu_filter.h"

static uint8_t *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file) exit(3);
    uint8_t *octets = malloc(1 << 24);
    *length = fread(octets, 1, 1 << 24, file);
    fclose(file);
    return octets;
}

static int accept_expected(const uint8_t *m, size_t n, const uint8_t *signature, size_t length, void *expected) {
    (void)m;
    (void)n;
    return length != strlen(expected) || memcmp(signature, expected, length);
}

static size_t unhex(const char *text, uint8_t *octets) {
    size_t n = 0;
    for (; text[2 * n] && text[2 * n + 1]; n++) {
        unsigned value;
        sscanf(text + 2 * n, "%2x", &value);
        octets[n] = (uint8_t)value;
    }
    return n;
}

int main(int argc, char **argv) {
    /* issuer, now, signature, filter, [delta] */
    uint8_t issuer[32], serial[64];
    unhex(argv[1], issuer);
    uint64_t now = strtoull(argv[2], NULL, 10);
    struct lamassu_filter full, delta;
    size_t length;
    uint8_t *octets = read_file(argv[4], &length);
    int fault = lamassu_filter_open(&full, octets, length, issuer, accept_expected, argv[3]);
    if (fault) return printf("fault %d\n", fault), 0;
    if (argc > 5) {
        octets = read_file(argv[5], &length);
        fault = lamassu_filter_open(&delta, octets, length, issuer, accept_expected, argv[3]);
        if (fault) return printf("fault %d\n", fault), 0;
    }
    char text[256];
    unsigned long long not_before;
    while (scanf("%200s %llu", text, &not_before) == 2) {
        size_t n = unhex(text, serial);
        printf("%d\n", lamassu_filter_judge(&full, argc > 5 ? &delta : NULL, serial, n, not_before, now));
    }
    return 0;
}
