#include <nvtx3/nvToolsExt.h>
#ifdef APRIME_HAS_NVTX_COUNTERS
#include <nvtx3/nvToolsExtCounters.h>
#include <nvtx3/nvToolsExtSemanticsCounters.h>
#endif

#include <array>
#include <mutex>

#include "host/trace/trace.hpp"

// Compiled only where the NVTX headers are (CMakeLists.txt).

namespace aprime::trace {
namespace {

/// NVTX's numbers begin at 1; 0 is "no category".
enum class Category : std::uint32_t { fault = 1, copy, revoke, writeback, lease, launch };
constexpr std::array<const char*, 6> kCategories{"fault", "copy", "revoke", "writeback", "lease", "launch"};

struct Look {
  Kind kind;
  const char* name;
  Category category;
  std::uint32_t argb;
};

constexpr std::array<Look, kKinds> kLooks{{
    {Kind::device_read_fault, "device read fault", Category::fault, 0xffe67e22},
    {Kind::device_write_fault, "device write fault", Category::fault, 0xffd35400},
    {Kind::host_read_fault, "host read fault", Category::fault, 0xfff1c40f},
    {Kind::host_write_fault, "host write fault", Category::fault, 0xfff39c12},
    {Kind::fill, "fill", Category::copy, 0xff2ecc71},
    {Kind::copy_back, "copy back", Category::copy, 0xff3498db},
    {Kind::revoke, "revoke", Category::revoke, 0xffe74c3c},
    {Kind::writeback, "writeback", Category::writeback, 0xff9b59b6},
    {Kind::sync, "sync", Category::writeback, 0xff8e44ad},
    {Kind::lease, "lease", Category::lease, 0xff1abc9c},
    {Kind::launch, "launch", Category::launch, 0xff7f8c8d},
}};

constexpr bool is_in_order() {
  for (std::size_t i = 0; i < kLooks.size(); ++i)
    if (static_cast<std::size_t>(kLooks[i].kind) != i) return false;
  return true;
}
static_assert(is_in_order(), "push() looks a kind up by its number");

}  // namespace

class Domain {
 public:
  explicit Domain(nvtxDomainHandle_t handle) : handle_(handle) {
    for (std::size_t i = 0; i < kCategories.size(); ++i)
      nvtxDomainNameCategoryA(handle_, static_cast<std::uint32_t>(i + 1), kCategories[i]);
    for (std::size_t i = 0; i < kLooks.size(); ++i)
      names_[i] = nvtxDomainRegisterStringA(handle_, kLooks[i].name);
  }
  ~Domain() { nvtxDomainDestroy(handle_); }
  Domain(const Domain&) = delete;
  Domain& operator=(const Domain&) = delete;

  nvtxDomainHandle_t handle() const noexcept { return handle_; }
  nvtxStringHandle_t name(Kind kind) const noexcept { return names_[static_cast<std::size_t>(kind)]; }

 private:
  const nvtxDomainHandle_t handle_;
  std::array<nvtxStringHandle_t, kKinds> names_{};
};

namespace {

struct Shared {
  /// Held while a tool is searched for, and while the domain goes, so that no other thread makes one
  /// meanwhile.
  std::mutex mutex;
  std::weak_ptr<const Domain> domain;
};

/// Made by the first Runtime, so that it outlives one in a static variable.
Shared& shared() {
  static Shared instance;
  return instance;
}

}  // namespace

std::shared_ptr<const Domain> open_domain() {
  Shared& all = shared();
  const std::lock_guard lock(all.mutex);
  std::shared_ptr<const Domain> domain = all.domain.lock();
  if (domain != nullptr) return domain;
  nvtxInitialize(nullptr);
  // NULL is what NVTX returns where no tool took the call.
  const nvtxDomainHandle_t handle = nvtxDomainCreateA("aprime");
  if (handle == nullptr) return nullptr;
  domain = std::make_shared<const Domain>(handle);
  all.domain = domain;
  return domain;
}

void close_domain(std::shared_ptr<const Domain>& domain) noexcept {
  if (domain == nullptr) return;
  const std::lock_guard lock(shared().mutex);
  domain.reset();
}

void push(const Domain& domain, Kind kind, const ByteCount* payload, const char* name) noexcept {
  const Look& look = kLooks[static_cast<std::size_t>(kind)];
  nvtxEventAttributes_t event{};
  event.version = NVTX_VERSION;
  event.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  event.category = static_cast<std::uint32_t>(look.category);
  event.colorType = NVTX_COLOR_ARGB;
  event.color = look.argb;
  if (payload != nullptr) {
    event.payloadType = NVTX_PAYLOAD_TYPE_UNSIGNED_INT64;
    event.payload.ullValue = payload->value;
  }
  if (name != nullptr) {
    event.messageType = NVTX_MESSAGE_TYPE_ASCII;
    event.message.ascii = name;
  } else {
    event.messageType = NVTX_MESSAGE_TYPE_REGISTERED;
    event.message.registered = domain.name(kind);
  }
  nvtxDomainRangePushEx(domain.handle(), &event);
}

void pop(const Domain& domain) noexcept { nvtxDomainRangePop(domain.handle()); }

#ifdef APRIME_HAS_NVTX_COUNTERS

bool has_counters() noexcept { return true; }

std::uint64_t register_counter(const Domain& domain, const std::string& name, const char* description) {
  nvtxSemanticsCounter_t bytes{};
  bytes.header.structSize = sizeof(bytes);
  bytes.header.semanticId = NVTX_SEMANTIC_ID_COUNTERS_V1;
  bytes.header.version = NVTX_COUNTER_SEMANTIC_VERSION;
  bytes.flags = NVTX_COUNTER_FLAG_VALUETYPE_ABSOLUTE | NVTX_COUNTER_FLAG_INTERPOLATION_UNTIL_NEXT;
  bytes.unit = "bytes";
  bytes.unitScaleNumerator = 1;
  bytes.unitScaleDenominator = 1;
  bytes.limitType = NVTX_COUNTER_LIMIT_UNDEFINED;

  nvtxCounterAttr_t counter{};
  counter.structSize = sizeof(counter);
  counter.schemaId = NVTX_PAYLOAD_ENTRY_TYPE_INT64;
  counter.name = name.c_str();
  counter.description = description;
  counter.scopeId = NVTX_SCOPE_CURRENT_SW_PROCESS;
  counter.semantics = &bytes.header;
  counter.counterId = NVTX_COUNTER_ID_NONE;
  return nvtxCounterRegister(domain.handle(), &counter);
}

void sample(const Domain& domain, std::uint64_t counter, std::uint64_t value) noexcept {
  nvtxCounterSampleInt64(domain.handle(), counter, static_cast<std::int64_t>(value));
}

#else

bool has_counters() noexcept { return false; }
std::uint64_t register_counter(const Domain&, const std::string&, const char*) { return 0; }
void sample(const Domain&, std::uint64_t, std::uint64_t) noexcept {}

#endif

}  // namespace aprime::trace
