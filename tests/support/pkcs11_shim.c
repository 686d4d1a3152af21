/* A PKCS #11 library around another: it counts calls and fails, hangs or serialises at will.
 *
 * SHIM_MODULE names the library around which it is built. Every function is one number, its place
 * in CK_FUNCTION_LIST of PKCS #11 v2.40. All arguments are words, so that one wrapper fits all. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define COUNT 68
#define CKR_OK 0UL
#define CKR_GENERAL_ERROR 5UL
#define CKR_CANT_LOCK 10UL
#define CKF_OS_LOCKING_OK 2UL

typedef unsigned long word;
typedef word (*function)(word, word, word, word, word, word, word, word);
typedef struct { unsigned char version[2]; void *functions[COUNT]; } list;

static list *inner, outer;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static int calls[COUNT], passes[COUNT], failures[COUNT], hangs[COUNT], inside, most_inside, refuses_locking;
static word answers[COUNT];

static word before(int which) {
    word answer = CKR_OK;
    pthread_mutex_lock(&mutex);
    calls[which]++;
    if (++inside > most_inside) most_inside = inside;
    while (hangs[which]) pthread_cond_wait(&released, &mutex);
    if (passes[which]) {
        passes[which]--;
    } else if (failures[which]) {
        if (failures[which] > 0) failures[which]--;
        answer = answers[which];
    }
    pthread_mutex_unlock(&mutex);
    return answer;
}

static void after(void) {
    pthread_mutex_lock(&mutex);
    inside--;
    pthread_mutex_unlock(&mutex);
}

static word call(int which, word a, word b, word c, word d, word e, word f, word g, word h) {
    word answer = before(which);
    if (answer == CKR_OK) answer = ((function)inner->functions[which])(a, b, c, d, e, f, g, h);
    after();
    return answer;
}

#define WRAP(n) \
    static word wrap_##n(word a, word b, word c, word d, word e, word f, word g, word h) { \
        return call(n, a, b, c, d, e, f, g, h); \
    }
#define ALL(x) \
    x(1) x(2) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15) x(16) x(17) \
    x(18) x(19) x(20) x(21) x(22) x(23) x(24) x(25) x(26) x(27) x(28) x(29) x(30) x(31) x(32) \
    x(33) x(34) x(35) x(36) x(37) x(38) x(39) x(40) x(41) x(42) x(43) x(44) x(45) x(46) x(47) \
    x(48) x(49) x(50) x(51) x(52) x(53) x(54) x(55) x(56) x(57) x(58) x(59) x(60) x(61) x(62) \
    x(63) x(64) x(65) x(66) x(67)
ALL(WRAP)

static word initialize(word arguments, word b, word c, word d, word e, word f, word g, word h) {
    /* flags stand after four function pointers */
    word flags = arguments ? ((word *)arguments)[4] : 0;
    (void)b; (void)c; (void)d; (void)e; (void)f; (void)g; (void)h;
    pthread_mutex_lock(&mutex);
    calls[0]++;
    pthread_mutex_unlock(&mutex);
    if (refuses_locking && (flags & CKF_OS_LOCKING_OK)) return CKR_CANT_LOCK;
    /* the one inside is always called by many, so that only we can be at fault */
    word many[6] = {0, 0, 0, 0, CKF_OS_LOCKING_OK, 0};
    return ((function)inner->functions[0])((word)many, 0, 0, 0, 0, 0, 0, 0);
}

word C_GetFunctionList(void **listed) {
    if (!inner) {
        void *library = dlopen(getenv("SHIM_MODULE"), RTLD_NOW | RTLD_LOCAL);
        word (*get)(list **) = library ? (word (*)(list **))dlsym(library, "C_GetFunctionList") : 0;
        if (!get || get(&inner) != CKR_OK) return CKR_GENERAL_ERROR;
        outer = *inner;
        refuses_locking = !strcmp(getenv("SHIM_CANNOT_LOCK"), "1");
#define PUT(n) outer.functions[n] = (void *)wrap_##n;
        ALL(PUT)
        outer.functions[0] = (void *)initialize;
        outer.functions[3] = (void *)C_GetFunctionList;
    }
    *listed = &outer;
    return CKR_OK;
}

/* what tests ask for */

/* times < 0: until told otherwise; the first `passed` calls are let through */
void shim_fail(int which, word answer, int times, int passed) {
    pthread_mutex_lock(&mutex);
    passes[which] = passed;
    answers[which] = answer;
    failures[which] = times;
    pthread_mutex_unlock(&mutex);
}

void shim_hang(int which, int yes) {
    pthread_mutex_lock(&mutex);
    hangs[which] = yes;
    pthread_cond_broadcast(&released);
    pthread_mutex_unlock(&mutex);
}

int shim_calls(int which) {
    pthread_mutex_lock(&mutex);
    int made = calls[which];
    pthread_mutex_unlock(&mutex);
    return made;
}

int shim_most_inside(void) { return most_inside; }
