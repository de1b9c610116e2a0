/*
 * A fake of libnvidia-ml.so.1 for tests, NOT NVIDIA's: no GPU can be had for them. Names, argument types, structures and
 * error codes are those of nvml.h; the figures are made up. It needs no header, and no library but the C library.
 *
 * FAKE_NVML in the environment has words that change it: "refuses" (power, energy and use are not told, as on a MIG
 * instance), "hangs" and "crashes" (when asked for the use), "lost" (GPU 1 has fallen off the bus), "unloaded" (there is
 * no driver), "foreign" (a process that is not of the job computes as well). Compiled with OLD, it lacks what a driver of
 * 2018 lacks.
 */
typedef unsigned int u32;
typedef unsigned long long u64;
extern char *getenv(const char *name);
extern int getpid(void);
extern unsigned int sleep(unsigned int seconds);
extern char *strstr(const char *text, const char *word);
extern int strcmp(const char *one, const char *other);
extern char *strcpy(char *to, const char *from);
extern void abort(void);

enum { OK = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15 };
#define GPUS 2
static const char *uuids[] = {"GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-0000-0000-0000-000000000000",
                              "MIG-cccccccc-0000-0000-0000-000000000000"};
static int ready;
static u64 calls;

static int is(const char *word) {
    const char *words = getenv("FAKE_NVML");
    return words && strstr(words, word) != 0;
}
static int number(void *gpu) { return (int)((const char **)gpu - uuids); }
static int usable(void *gpu) {
    if (!ready) return UNINITIALIZED;
    return is("lost") && number(gpu) == 1 ? GPU_IS_LOST : OK;
}

int nvmlInit(void) { ready = !is("unloaded"); return ready ? OK : DRIVER_NOT_LOADED; }
const char *nvmlErrorString(u32 code) {
    return code == DRIVER_NOT_LOADED ? "Driver Not Loaded" : code == GPU_IS_LOST ? "GPU is lost" : "an error";
}
int nvmlDeviceGetCount(u32 *count) { *count = GPUS; return ready ? OK : UNINITIALIZED; }
int nvmlDeviceGetHandleByIndex(u32 index, void **gpu) {
    *gpu = (void *)&uuids[index];
    return index < GPUS ? usable(*gpu) : NOT_FOUND;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **gpu) {
    for (int i = 0; i < 3; i++)
        if (!strcmp(uuid, uuids[i])) { *gpu = (void *)&uuids[i]; return usable(*gpu); }
    return NOT_FOUND;
}
int nvmlDeviceGetUUID(void *gpu, char *text, u32 room) {
    strcpy(text, uuids[number(gpu)]);
    return OK;
}
struct rates { u32 gpu, memory; };
int nvmlDeviceGetUtilizationRates(void *gpu, struct rates *rates) {
    if (is("hangs")) for (;;) sleep(1000);
    if (is("crashes")) *(volatile int *)8 = 1;
    if (is("refuses") || number(gpu) == 2) return NOT_SUPPORTED;
    rates->gpu = number(gpu) ? 0 : 60;
    rates->memory = 5;
    return usable(gpu);
}
struct memory { u64 total, free, used; };
int nvmlDeviceGetMemoryInfo(void *gpu, struct memory *memory) {
    *memory = (struct memory){80000, 77000, 3000};
    return usable(gpu);
}
int nvmlDeviceGetPowerUsage(void *gpu, u32 *milliwatts) {
    *milliwatts = 300000;
    return is("refuses") ? NOT_SUPPORTED : usable(gpu);
}
int nvmlDeviceGetTemperature(void *gpu, u32 sensor, u32 *degrees) { *degrees = 55; return usable(gpu); }

#ifdef OLD
struct process { u32 pid; u64 used; };
int nvmlDeviceGetComputeRunningProcesses(void *gpu, u32 *count, struct process *found)
#else
struct process { u32 pid; u64 used; u32 gpu_instance, compute_instance; };
int nvmlDeviceGetComputeRunningProcesses(void *gpu, u32 *count, struct process *found) { abort(); }
int nvmlInit_v2(void) { return nvmlInit(); }
int nvmlDeviceGetCount_v2(u32 *count) { return nvmlDeviceGetCount(count); }
int nvmlDeviceGetHandleByIndex_v2(u32 index, void **gpu) { return nvmlDeviceGetHandleByIndex(index, gpu); }
struct memory_v2 { u32 version; u64 total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(void *gpu, struct memory_v2 *memory) {
    if (memory->version != (sizeof *memory | 2 << 24)) return 25;
    *memory = (struct memory_v2){memory->version, 80000, 1000, 77000, 2000};
    return usable(gpu);
}
int nvmlDeviceGetTotalEnergyConsumption(void *gpu, u64 *millijoules) {
    *millijoules = ++calls * 1000000;
    return is("refuses") ? NOT_SUPPORTED : usable(gpu);
}
/* The driver has looked every second: 0 and 80 in turn. */
struct sample { u64 time; union { double d; u32 u; u64 l; } value; };
int nvmlDeviceGetSamples(void *gpu, u32 kind, u64 since, u32 *type, u32 *count, struct sample *found) {
    if (kind != 1 || is("refuses") || number(gpu) != 0) return NOT_SUPPORTED;
    *type = 1;
    if (!found) { *count = 100; return OK; }
    *count = 10;
    for (u32 i = 0; i < 10; i++) {
        found[i].time = since / 1000000 * 1000000 + (i + 1) * 1000000;
        found[i].value.u = i % 2 * 80;
    }
    return OK;
}
struct use { u32 pid; u64 time; u32 sm, memory, encoder, decoder; };
int nvmlDeviceGetProcessUtilization(void *gpu, struct use *found, u32 *count, u64 since) {
    if (!found) { *count = 100; return INSUFFICIENT_SIZE; }
    found[0] = (struct use){(u32)getpid(), 5, 90, 0, 0, 0};
    found[1] = (struct use){(u32)getpid(), 7, 12, 0, 0, 0};
    found[2] = (struct use){1, 7, 40, 0, 0, 0};
    *count = 3;
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *gpu, u32 *count, struct process *found)
#endif
{
    /* The process that asks is on GPU 0; that is no process of a job, but of a test. */
    u32 known = is("foreign") ? 40 : 1, room = *count;
    *count = number(gpu) ? 0 : known;
    if (*count > room) return INSUFFICIENT_SIZE;
    for (u32 i = 0; i < *count; i++) {
        found[i].pid = i ? i : (u32)getpid();
        found[i].used = i ? ~0ULL : 1500;
    }
    return usable(gpu);
}
