/* How many signatures a token makes when C asks for them: C_SignInit and C_Sign in a loop.
 *
 *   CSIGN_PIN=... csign MODULE TOKEN KEY-ID MECHANISM HASH INPUT THREADS SECONDS
 *
 * KEY-ID is CKA_ID in hex; MECHANISM a number of CKM_...; HASH the CKM_... of CKM_RSA_PKCS_PSS's
 * parameters, or 0; INPUT what is signed, in hex. Prints signatures per second.
 * No header of PKCS #11 is needed: what is called stands at its place in CK_FUNCTION_LIST (v2.40).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef unsigned long word;
typedef word (*function)();
typedef struct { unsigned char version[2]; void *functions[68]; } list;
typedef struct { word type; void *value; word length; } attribute;
typedef struct { word type; void *parameter; word length; } mechanism;
typedef struct { word hash, mgf, salt; } pss;
typedef struct { void *mutexes[4]; word flags; void *reserved; } arguments;

enum { INITIALIZE = 0, SLOTS = 4, TOKEN = 6, OPEN = 12, LOGIN = 18, FIND_INIT = 26, FIND = 27,
       FIND_FINAL = 28, SIGN_INIT = 42, SIGN = 43 };

static list *p11;
static word slot;
static unsigned char key_id[64], input[8192];
static word key_id_length, input_length;
static mechanism signing;
static volatile int over;

static void check(const char *name, word answer) {
    if (answer) { fprintf(stderr, "%s: 0x%lx\n", name, answer); exit(1); }
}
#define DO(name, ...) check(#name, ((function)p11->functions[name])(__VA_ARGS__))

static word unhex(const char *text, unsigned char *out, word room) {
    word length = strlen(text) / 2;
    if (length > room) { fprintf(stderr, "too long: %s\n", text); exit(1); }
    for (word i = 0; i < length; i++) sscanf(text + 2 * i, "%2hhx", out + i);
    return length;
}

static word open_session(void) {
    word session;
    DO(OPEN, slot, 6UL, NULL, NULL, &session); /* CKF_SERIAL_SESSION | CKF_RW_SESSION */
    return session;
}

static void *loop(void *counted) {
    word session = open_session(), class = 3 /* CKO_PRIVATE_KEY */, key = 0, found = 0;
    attribute wanted[] = {{0x000, &class, sizeof class}, {0x102, key_id, key_id_length}};
    DO(FIND_INIT, session, wanted, 2UL);
    DO(FIND, session, &key, 1UL, &found);
    DO(FIND_FINAL, session);
    if (!found) { fprintf(stderr, "no such key\n"); exit(1); }
    long count = 0;
    while (!over) {
        unsigned char signature[8192];
        word length = sizeof signature;
        DO(SIGN_INIT, session, &signing, key);
        DO(SIGN, session, input, input_length, signature, &length);
        count++;
    }
    *(long *)counted = count;
    return NULL;
}

static void find_slot(const char *label) {
    word slots[64], count = 64;
    unsigned char token[256], padded[32];
    memset(padded, ' ', sizeof padded);
    memcpy(padded, label, strlen(label) < 32 ? strlen(label) : 32);
    DO(SLOTS, 1UL, slots, &count);
    for (word i = 0; i < count; i++) {
        DO(TOKEN, slots[i], token);
        if (!memcmp(token, padded, 32)) { slot = slots[i]; return; }
    }
    fprintf(stderr, "no token %s\n", label);
    exit(1);
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 9 || !getenv("CSIGN_PIN")) { fprintf(stderr, "see csign.c\n"); return 2; }
    void *library = dlopen(argv[1], RTLD_NOW);
    word (*get)(list **) = library ? (word (*)(list **))dlsym(library, "C_GetFunctionList") : NULL;
    if (!get || get(&p11)) { fprintf(stderr, "%s is no PKCS #11 library\n", argv[1]); return 1; }
    arguments threads_too = {.flags = 2}; /* CKF_OS_LOCKING_OK */
    DO(INITIALIZE, &threads_too);
    find_slot(argv[2]);
    key_id_length = unhex(argv[3], key_id, sizeof key_id);
    pss parameters = {strtoul(argv[5], NULL, 0), 0, 0};
    signing.type = strtoul(argv[4], NULL, 0);
    if (parameters.hash) { /* CKM_SHA256 0x250 -> CKG_MGF1_SHA256 2, 384 -> 3, 512 -> 4 */
        parameters.mgf = 2 + (parameters.hash - 0x250) / 0x10;
        parameters.salt = 32 + 16 * (parameters.mgf - 2);
        signing.parameter = &parameters;
        signing.length = sizeof parameters;
    }
    input_length = unhex(argv[6], input, sizeof input);
    word session = open_session();
    DO(LOGIN, session, 1UL, getenv("CSIGN_PIN"), (word)strlen(getenv("CSIGN_PIN")));

    int many = atoi(argv[7]);
    pthread_t threads[256];
    long counts[256] = {0}, sum = 0;
    double started = now();
    for (int i = 0; i < many; i++) pthread_create(&threads[i], NULL, loop, &counts[i]);
    struct timespec wait = {(time_t)atof(argv[8]), 0};
    wait.tv_nsec = (long)((atof(argv[8]) - (double)wait.tv_sec) * 1e9);
    nanosleep(&wait, NULL);
    over = 1;
    for (int i = 0; i < many; i++) { pthread_join(threads[i], NULL); sum += counts[i]; }
    printf("%.1f\n", (double)sum / (now() - started));
    return 0;
}
