-- Shows the labels of govc in Wireshark and tshark; docs/label.md is the format, docs/wireshark.md the manual.
--
-- A post-dissector: the label lies inside of headers that other dissectors have read already, so this one looks where they found IP
-- headers. That covers VLANs, tunnels and quotes in ICMP errors without a line for any of them.

local HEADER_V4, HEADER_V6 = 20, 40
local OPTION_V4, OPTION_V6 = 0x9e, { [0x1e] = true, [0x5e] = true }
local BODY = 28
-- Where the option starts, counted from the IP header.
local PLACE_V4, PLACE_V6 = HEADER_V4 + 2, HEADER_V6 + 2
local WORDS_V4 = 13
local VERSION = 1
-- A tunnel: UDP to this port, Geneve, and one option of this class, type and number of words.
local UDP, TUNNEL_PORT, TUNNEL_CLASS, TUNNEL_TYPE, TUNNEL_WORDS = 17, 6081, 0xff9e, 0x9e, 7
local UDP_HEADER, GENEVE_HEADER, GENEVE_OPTION = 8, 8, 4
local SLOT_SECONDS = 2

local HOP_BY_HOP, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 44, 51, 60
local EXTENSIONS = {
    [HOP_BY_HOP] = "hop-by-hop options",
    [43] = "a routing header",
    [FRAGMENT] = "a fragment header",
    [AUTHENTICATION] = "an authentication header",
    [DESTINATION_OPTIONS] = "destination options",
    [135] = "a mobility header",
    [139] = "a HIP header",
    [140] = "a Shim6 header",
    [253] = "an experimental header",
    [254] = "an experimental header",
    [255] = "a reserved header",
}
-- Those whose length nobody can know.
local OPAQUE = { [253] = true, [254] = true, [255] = true }

local govc = Proto("govc", "govc label")

local CARRIAGES = { [4] = "IPv4 option", [6] = "IPv6 destination option", [UDP] = "UDP tunnel" }
local RADII = { [0] = "node", "cluster", "domain", "federation", "any" }

local F = {
    carriage = ProtoField.uint8("govc.carriage", "Carriage", base.DEC, CARRIAGES),
    quoted = ProtoField.bool("govc.quoted", "Quoted by ICMP"),
    refused = ProtoField.bool("govc.refused", "Refused"),
    version = ProtoField.uint8("govc.version", "Version", base.DEC, nil, 0xf0),
    flags = ProtoField.uint8("govc.flags", "Flags", base.HEX, nil, 0x0f),
    reserved = ProtoField.bool("govc.flags.reserved", "Reserved", 8, nil, 0x08),
    trace = ProtoField.bool("govc.flags.trace", "Trace", 8, nil, 0x04),
    seq_flag = ProtoField.bool("govc.flags.seq", "Sequence", 8, nil, 0x02),
    reply = ProtoField.bool("govc.flags.reply", "Reply", 8, nil, 0x01),
    epoch = ProtoField.uint8("govc.epoch", "Epoch", base.DEC, nil, 0xf0),
    life = ProtoField.uint8("govc.life", "Life", base.DEC, nil, 0x0f),
    domain = ProtoField.uint16("govc.domain", "Domain"),
    subject = ProtoField.uint24("govc.subject", "Subject"),
    level = ProtoField.uint8("govc.level", "Level", base.DEC, nil, 0xf0),
    radius = ProtoField.uint8("govc.radius", "Radius", base.DEC, RADII, 0x0f),
    compartments = ProtoField.uint16("govc.compartments", "Compartments", base.HEX),
    constraints = ProtoField.uint16("govc.constraints", "Constraints", base.HEX),
    operation = ProtoField.uint16("govc.operation", "Operation"),
    residency = ProtoField.uint8("govc.residency", "Residency"),
    route = ProtoField.uint8("govc.route", "Route class"),
    slot = ProtoField.uint16("govc.slot", "Slot"),
    age = ProtoField.int16("govc.age", "Age in slots, by the capture's clock"),
    grant = ProtoField.uint16("govc.grant", "Grant"),
    seq = ProtoField.uint16("govc.seq", "Sequence number"),
    mac = ProtoField.bytes("govc.mac", "MAC"),
    domain_name = ProtoField.string("govc.domain.name", "Name"),
    subject_name = ProtoField.string("govc.subject.name", "Name"),
    level_name = ProtoField.string("govc.level.name", "Name"),
    compartments_name = ProtoField.string("govc.compartments.name", "Name"),
    constraints_name = ProtoField.string("govc.constraints.name", "Name"),
    operation_name = ProtoField.string("govc.operation.name", "Name"),
    residency_name = ProtoField.string("govc.residency.name", "Name"),
    route_name = ProtoField.string("govc.route.name", "Name"),
}
govc.fields = F

-- Every one of these means that enforcement points refuse the packet.
local function refusal(name, text, group)
    return ProtoExpert.new("govc." .. name, text, group or expert.group.MALFORMED, expert.severity.ERROR)
end

local E = {
    length = refusal("shape.length", "Wrong length"),
    position = refusal("shape.position", "Wrong position"),
    others = refusal("shape.others", "Not the only option"),
    extension = refusal("shape.extension", "An extension header follows"),
    -- Policies say whether such are read.
    fragment = ProtoExpert.new("govc.shape.fragment", "A fragment", expert.group.PROTOCOL, expert.severity.NOTE),
    -- The capture may be at fault instead of the packet.
    truncated = ProtoExpert.new("govc.shape.truncated", "Not all there", expert.group.MALFORMED, expert.severity.WARN),
    version = refusal("version.unknown", "Unknown version"),
    reserved = refusal("flags.reserved.set", "Reserved flag set"),
    seq = refusal("flags.seq.set", "Sequence flag set", expert.group.PROTOCOL),
    constraints = refusal("constraints.unknown", "Constraint without a name", expert.group.PROTOCOL),
}
govc.experts = E

govc.prefs.names = Pref.string(
    "Names", "", "A file with what `govc inspect --json IMAGE` prints; if empty, the environment variable GOVC_NAMES names it"
)

local function utf8_of(code)
    if code < 0x80 then return string.char(code) end
    if code < 0x800 then return string.char(0xc0 + math.floor(code / 0x40), 0x80 + code % 0x40) end
    return string.char(0xe0 + math.floor(code / 0x1000), 0x80 + math.floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
end

local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }
local WORDS = { ["true"] = true, ["false"] = false }

-- The value that a JSON text spells. Wireshark lends Lua no reader of JSON.
local function json(text)
    local at = 1
    local value

    local function fail(what)
        error(string.format("%s at byte %d", what, at), 0)
    end

    local function skip()
        at = text:find("[^ \t\r\n]", at) or #text + 1
        return text:sub(at, at)
    end

    local function take(char)
        if skip() ~= char then fail("`" .. char .. "` expected") end
        at = at + 1
    end

    local function str()
        take('"')
        local parts = {}
        while true do
            local stop = text:find('["\\]', at) or fail("text without an end")
            parts[#parts + 1] = text:sub(at, stop - 1)
            at = stop + 1
            if text:sub(stop, stop) == '"' then return table.concat(parts) end
            local char = text:sub(at, at)
            local code = char == "u" and text:match("^%x%x%x%x", at + 1)
            parts[#parts + 1] = code and utf8_of(tonumber(code, 16)) or ESCAPES[char] or char
            at = at + (code and 5 or 1)
        end
    end

    -- Members up to a closing character; `member` reads one.
    local function list(open, close, member)
        take(open)
        if skip() == close then
            at = at + 1
            return
        end
        while true do
            member()
            if skip() == close then
                at = at + 1
                return
            end
            take(",")
        end
    end

    function value(depth)
        if depth > 32 then fail("too deep") end
        local char = skip()
        local result = {}
        if char == '"' then return str() end
        if char == "{" then
            list("{", "}", function()
                local key = str()
                take(":")
                result[key] = value(depth + 1)
            end)
            return result
        end
        if char == "[" then
            list("[", "]", function() table.insert(result, value(depth + 1)) end)
            return result
        end
        local word = text:match("^[%w.+-]+", at) or fail("a value expected")
        if word ~= "null" and WORDS[word] == nil and not tonumber(word) then fail("`" .. word .. "` found") end
        at = at + #word
        if WORDS[word] ~= nil then return WORDS[word] end
        return tonumber(word)
    end

    local result = value(0)
    if skip() ~= "" then fail("the end expected") end
    return result
end

local function need(value, kind, what)
    if type(value) ~= kind then error("`" .. what .. "` is not a " .. kind, 0) end
    return value
end

local function numbered(entries, what)
    local names = {}
    for _, entry in ipairs(need(entries, "table", what)) do
        names[need(entry.number, "number", "number")] = need(entry.name, "string", "name")
    end
    return names
end

local function interval(pair)
    need(need(pair, "table", "interval")[1], "number", "first")
    need(pair[2], "number", "last")
end

local function scopes_of(domain)
    for _, scope in ipairs(need(domain.scopes, "table", "scopes")) do
        need(scope.path, "string", "path")
        for _, block in ipairs(need(scope.blocks, "table", "blocks")) do interval(block) end
        if scope.subjects ~= nil then interval(scope.subjects) end
    end
    return domain.scopes
end

-- Vocabularies by domain number. All is looked at here, so that no packet stumbles over it later.
local function vocabularies(text)
    local report = need(json(text), "table", "report")
    local found = {}
    for _, domain in ipairs(need(report.domains, "table", "domains")) do
        found[need(domain.number, "number", "number")] = {
            name = need(domain.name, "string", "name"),
            levels = numbered(domain.levels, "levels"),
            compartments = numbered(domain.compartments, "compartments"),
            constraints = numbered(domain.constraints, "constraints"),
            operations = numbered(domain.operations, "operations"),
            residencies = numbered(domain.residencies, "residencies"),
            routes = numbered(domain.routes, "routes"),
            scopes = scopes_of(domain),
            -- Packets repeat subjects, and finding one looks at all scopes.
            subjects = {},
        }
    end
    return found
end

local function within(blocks, number)
    for _, block in ipairs(blocks) do
        if block[1] <= number and number <= block[2] then return true end
    end
    return false
end

local function find_subject(domain, number)
    -- Inner scopes follow the ones that they lie in.
    for i = #domain.scopes, 1, -1 do
        local scope = domain.scopes[i]
        if within(scope.blocks, number) then
            local own = scope.subjects
            local several = own and own[1] < own[2] and within({ own }, number)
            return domain.name .. "." .. scope.path .. (several and string.format("[%d]", number - own[1]) or "")
        end
    end
end

local function subject_name(domain, number)
    if not domain then return end
    if domain.subjects[number] == nil then domain.subjects[number] = find_subject(domain, number) or false end
    return domain.subjects[number] or nil
end

local names, names_are_old = {}, true

local function read_names()
    names, names_are_old = {}, false
    local path = govc.prefs.names
    if path == nil or path == "" then path = os.getenv("GOVC_NAMES") or "" end
    if path == "" then return end
    local file, why = io.open(path, "rb")
    if file then
        local text = file:read("*a") or ""
        file:close()
        local good, result = pcall(vocabularies, text)
        if good then
            names = result
            return
        end
        why = path .. ": " .. tostring(result)
    end
    report_failure("govc: labels are shown without names: " .. tostring(why))
end

-- Read with the first packet, once: Wireshark calls these more often than it opens captures.
local function forget_names()
    names_are_old = true
end

govc.init = forget_names
govc.prefs_changed = forget_names

local function byte(bytes, at)
    return bytes(at, 1):uint()
end

-- A label, or what was meant to be one: where the bytes to mark start and stop, where the body starts if it can be read, and what is
-- wrong with it.
local function candidate(carriage, start, stop)
    return { carriage = carriage, start = start, stop = stop, problems = {} }
end

local function problem(found, which, text, ...)
    table.insert(found.problems, { which, string.format(text, ...) })
end

-- Notes where the body of an option lies, or why it cannot be read. The header that it stands in ends at `header_end`.
local function place_body(found, option, len, wanted, header_end, captured)
    if len ~= wanted then
        problem(found, E.length, "Wrong length: the option says %d, a label's %d", len, wanted)
    elseif option + 2 + BODY > header_end then
        problem(found, E.length, "Wrong length: the header ends before the label")
    elseif option + 2 + BODY > captured then
        problem(found, E.truncated, "Not all there: the packet or its capture ends before the label")
    else
        found.body = option + 2
    end
end

-- A label in front of the packet in a tunnel whose UDP header starts at `udp`.
local function in_tunnel(bytes, udp, ethertype, fragment, captured, found)
    local geneve = udp + UDP_HEADER
    local option = geneve + GENEVE_HEADER
    local body = option + GENEVE_OPTION
    if body > captured or bytes(udp + 2, 2):uint() ~= TUNNEL_PORT then return end
    local first = byte(bytes, geneve)
    if first == 0 or first >= 0x40 or bytes(option, 2):uint() ~= TUNNEL_CLASS then return end
    local label = candidate(UDP, option, math.min(body + BODY, captured))
    local words = byte(bytes, option + 3)
    if byte(bytes, option + 2) ~= TUNNEL_TYPE or words ~= TUNNEL_WORDS then
        problem(label, E.length, "Wrong length: the option is of type 0x%02x and %d words", byte(bytes, option + 2), words)
    elseif body + BODY > captured then
        problem(label, E.truncated, "Not all there: the packet or its capture ends before the label")
    else
        label.body = body
    end
    local head = bytes(geneve, GENEVE_HEADER)
    local usual = head(0, 2):uint() == 0x0840 and head(2, 2):uint() == ethertype and head(4, 4):uint() == 0
    if not usual or bytes(udp + 6, 2):uint() ~= 0 then
        problem(label, E.others, "Not the only option, or another tunnel than labels ride in")
    end
    if fragment then problem(label, E.others, "A fragment of a tunnel") end
    table.insert(found, label)
end

-- Labels in an IPv4 header.
local function in_v4(bytes, at, found)
    local captured = bytes:len()
    if at + HEADER_V4 > captured then return end
    local header_len = byte(bytes, at) % 16 * 4
    local total = bytes(at + 2, 2):uint()
    local header_end = at + header_len
    -- A super-packet of more than 64 KiB says 0.
    if total ~= 0 then captured = math.min(captured, at + total) end
    local label, others
    local option = at + HEADER_V4
    while option < math.min(header_end, captured) do
        local kind = byte(bytes, option)
        local len = 1
        if kind == 0 then break end
        if kind ~= 1 then
            if option + 2 > math.min(header_end, captured) then break end
            len = byte(bytes, option + 1)
            if kind == OPTION_V4 and not label then
                label = candidate(4, option, math.min(option + math.max(len, 2), header_end, captured))
                place_body(label, option, len, 2 + BODY, header_end, captured)
                if option ~= at + PLACE_V4 or header_len ~= WORDS_V4 * 4 then
                    problem(
                        label, E.position, "Wrong position: byte %d of a header of %d words, not byte %d of %d", option - at,
                        header_len / 4, PLACE_V4, WORDS_V4
                    )
                end
            else
                others = others or kind
            end
            if len < 2 then break end
        end
        option = option + len
    end
    local fragment = bytes(at + 6, 2):uint() % 0x4000 ~= 0
    if header_len == HEADER_V4 and byte(bytes, at + 9) == UDP then
        in_tunnel(bytes, header_end, 0x0800, fragment, captured, found)
    end
    if not label then return end
    if others then problem(label, E.others, "Not the only option: there is one of type 0x%02x", others) end
    -- The NOPs belong to the label.
    if #label.problems == 0 then label.start = at + HEADER_V4 end
    if fragment then problem(label, E.fragment, "A fragment, with a label of its own") end
    table.insert(found, label)
end

-- Labels in one header with options; `first` says whether it is the right header in the right place.
local function in_options(bytes, header, header_end, captured, first, found)
    local mine, count, kinds = {}, 0, {}
    local option = header + 2
    while option < math.min(header_end, captured) do
        local kind = byte(bytes, option)
        count = count + 1
        kinds[count] = kind
        local len = -1
        if kind ~= 0 then
            if option + 2 > math.min(header_end, captured) then break end
            len = byte(bytes, option + 1)
            if OPTION_V6[kind] then
                local label = candidate(6, option, math.min(option + 2 + len, header_end, captured))
                place_body(label, option, len, BODY, header_end, captured)
                if not first or option ~= header + 2 then
                    problem(
                        label, E.position, first and "Wrong position: not the first option of its header"
                            or "Wrong position: not in a destination options header that is the first extension header"
                    )
                end
                label.index = count
                table.insert(mine, label)
            end
        end
        option = option + 2 + len
    end
    for _, label in ipairs(mine) do
        if count > 1 then
            local other = kinds[label.index == 1 and 2 or 1]
            problem(label, E.others, "Not the only option: there is one of type 0x%02x", other)
        end
        -- The next header and the length belong to the label.
        if #label.problems == 0 then label.start = header end
        table.insert(found, label)
    end
    return mine
end

-- Notes that an extension header follows, if it is one.
local function follows(label, next_header)
    local name = EXTENSIONS[next_header]
    if name then problem(label, E.extension, "An extension header follows: %s", name) end
end

-- Labels in the extension headers behind an IPv6 header.
local function in_v6(bytes, at, found)
    local captured = bytes:len()
    if at + HEADER_V6 > captured then return end
    local payload = bytes(at + 4, 2):uint()
    -- A jumbogram says 0.
    if payload ~= 0 then captured = math.min(captured, at + HEADER_V6 + payload) end
    local next_header, header = byte(bytes, at + 6), at + HEADER_V6
    if next_header == UDP then in_tunnel(bytes, header, 0x86dd, false, captured, found) end
    local waiting = {}
    while EXTENSIONS[next_header] do
        for _, label in ipairs(waiting) do
            if next_header == FRAGMENT and not label.fragment then
                label.fragment = true
                problem(label, E.fragment, "A fragment, with a label of its own")
            else
                follows(label, next_header)
            end
        end
        -- What a fragment carries comes next.
        if next_header ~= FRAGMENT then waiting = {} end
        if OPAQUE[next_header] or header + 2 > captured then return end
        local kind, len = next_header, (byte(bytes, header + 1) + 1) * 8
        if kind == FRAGMENT then
            if header + 4 > captured then return end
            if bytes(header + 2, 2):uint() >= 8 then
                for _, label in ipairs(waiting) do follows(label, byte(bytes, header)) end
                return
            end
            len = 8
        elseif kind == AUTHENTICATION then
            len = (byte(bytes, header + 1) + 2) * 4
        end
        next_header = byte(bytes, header)
        if kind == DESTINATION_OPTIONS or kind == HOP_BY_HOP then
            local first = kind == DESTINATION_OPTIONS and header == at + HEADER_V6
            waiting = in_options(bytes, header, header + len, captured, first, found)
        end
        header = header + len
    end
end

local function add_name(item, field, name)
    if not name then return end
    item:append_text(" (" .. name .. ")")
    item:add(field, name):set_generated()
end

-- Names of the bits that are set. Without a vocabulary bits have numbers.
local function add_bits(item, field, bits, vocabulary)
    local texts, unnamed = {}, {}
    for bit = 0, 15 do
        if math.floor(bits / 2 ^ bit) % 2 == 1 then
            local name = vocabulary and vocabulary[bit]
            table.insert(texts, name or string.format("bit %d", bit))
            if name then
                item:add(field, name):set_generated()
            else
                table.insert(unnamed, string.format("%d", bit))
            end
        end
    end
    if #texts > 0 then item:append_text(" (" .. table.concat(texts, ", ") .. ")") end
    return unnamed
end

local function add_flags(tree, range)
    local flags = range:bitfield(4, 4)
    local item = tree:add(F.flags, range)
    local seq = math.floor(flags / 2) % 2 == 1
    local reserved = item:add(F.reserved, range)
    if flags >= 8 then reserved:add_proto_expert_info(E.reserved, "Reserved flag set") end
    item:add(F.trace, range)
    local seq_item = item:add(F.seq_flag, range)
    if seq then seq_item:add_proto_expert_info(E.seq, "Sequence flag set: this version refuses it") end
    item:add(F.reply, range)
    return seq, flags % 2 == 1, flags >= 8 or seq
end

local function add_slot(tree, range, pinfo)
    local slot = range:uint()
    -- Sequence arithmetic: the slot of the capture's clock that is nearest.
    local age = (math.floor(pinfo.abs_ts / SLOT_SECONDS) - slot) % 65536
    if age >= 32768 then age = age - 65536 end
    tree:add(F.slot, range):add(F.age, age):set_generated()
end

-- Adds the fields of a body and gives a summary, and whether this version refuses them.
local function add_body(tree, body, pinfo)
    local version = body(0, 1):bitfield(0, 4)
    local item = tree:add(F.version, body(0, 1))
    local refused = version ~= VERSION
    if refused then
        item:add_proto_expert_info(E.version, string.format("Unknown version %d; read as version %d", version, VERSION))
    end
    local seq, reply, bad_flags = add_flags(tree, body(0, 1))
    tree:add(F.epoch, body(1, 1))
    local life = body(1, 1):bitfield(4, 4)
    tree:add(F.life, body(1, 1)):append_text(string.format(" (%d slots)", 2 ^ life))

    local number, subject, operation = body(2, 2):uint(), body(4, 3):uint(), body(12, 2):uint()
    local domain = names[number]
    local function name_in(kind, of)
        return domain and domain[kind][of]
    end
    add_name(tree:add(F.domain, body(2, 2)), F.domain_name, domain and domain.name)
    local path = subject_name(domain, subject)
    add_name(tree:add(F.subject, body(4, 3)), F.subject_name, path)
    add_name(tree:add(F.level, body(7, 1)), F.level_name, name_in("levels", body(7, 1):bitfield(0, 4)))
    tree:add(F.radius, body(7, 1))
    local compartments = tree:add(F.compartments, body(8, 2))
    add_bits(compartments, F.compartments_name, body(8, 2):uint(), domain and domain.compartments)
    local constraints = tree:add(F.constraints, body(10, 2))
    local unknown = add_bits(constraints, F.constraints_name, body(10, 2):uint(), domain and domain.constraints)
    -- Numbers without names say nothing where no vocabulary was read.
    if domain and #unknown > 0 then
        refused = true
        constraints:add_proto_expert_info(E.constraints, "Constraint without a name: bit " .. table.concat(unknown, ", "))
    end
    local doing = name_in("operations", operation)
    add_name(tree:add(F.operation, body(12, 2)), F.operation_name, doing)
    add_name(tree:add(F.residency, body(14, 1)), F.residency_name, name_in("residencies", body(14, 1):uint()))
    add_name(tree:add(F.route, body(15, 1)), F.route_name, name_in("routes", body(15, 1):uint()))
    add_slot(tree, body(16, 2), pinfo)
    tree:add(seq and F.seq or F.grant, body(18, 2))
    tree:add(F.mac, body(20, 8))

    local summary = path or string.format("%s:%d", domain and domain.name or string.format("%d", number), subject)
    if operation ~= 0 then summary = summary .. " → " .. (doing or string.format("op %d", operation)) end
    if reply then summary = summary .. ", reply" end
    return summary, refused or bad_flags
end

local function show(bytes, found, quoted, pinfo, root)
    local tree = root:add(govc, bytes(found.start, found.stop - found.start))
    tree:add(F.carriage, found.carriage):set_generated()
    if quoted then tree:add(F.quoted, true):set_generated() end
    local summary, refused
    if found.body then summary, refused = add_body(tree, bytes(found.body, BODY), pinfo) end
    for _, each in ipairs(found.problems) do tree:add_proto_expert_info(each[1], each[2]) end
    local words, refusals, cut = { summary }, 0, false
    for _, each in ipairs(found.problems) do
        if each[1] == E.fragment then
            table.insert(words, "fragment")
        else
            refusals = refusals + 1
            cut = each[1] == E.truncated
        end
    end
    if cut and refusals == 1 then
        table.insert(words, "cut off")
    elseif refused or refusals > 0 then
        tree:add(F.refused, true):set_generated()
        table.insert(words, "refused")
    end
    local text = (quoted and "quoted " or "") .. table.concat(words, ", ")
    tree:append_text(": " .. text)
    pinfo.cols.info:append(" [govc " .. text .. "]")
end

local HEADERS = { { Field.new("ip"), in_v4 }, { Field.new("ipv6"), in_v6 } }
local ERRORS = { Field.new("icmp"), Field.new("icmpv6") }

-- ICMP carries IP headers only as quotes of packets that met an error.
local function is_quoted(header)
    for _, field in ipairs(ERRORS) do
        for _, icmp in ipairs({ field() }) do
            if icmp.offset < header.offset and icmp.source == header.source then return true end
        end
    end
    return false
end

function govc.dissector(_, pinfo, root)
    if names_are_old then read_names() end
    for _, kind in ipairs(HEADERS) do
        for _, header in ipairs({ kind[1]() }) do
            local bytes, found = header.source, {}
            kind[2](bytes, header.offset, found)
            for _, each in ipairs(found) do show(bytes, each, is_quoted(header), pinfo, root) end
        end
    end
end

register_postdissector(govc)
