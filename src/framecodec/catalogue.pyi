# Generated from the catalogue by: python -m tests.test_catalogue
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, final, overload

from ._catalogue import Format as Format
from ._catalogue import PktLine as _PktLine
from ._catalogue import did_you_mean as did_you_mean
from .codec import Codec

__all__ = ["Catalogue", "Format", "PktLine", "formats"]

PktLine = _PktLine

@final
class Catalogue(Mapping[str, Codec]):
    PktLine = _PktLine
    def __init__(
        self, rows: Iterable[Format], aliases: Mapping[str, str] | None = None
    ) -> None: ...
    @overload
    def __getitem__(  # type: ignore[overload-overlap]
        self, name: Literal["resp-bulk", "elasticsearch"]
    ) -> Codec[bytes | None]: ...
    @overload
    def __getitem__(  # type: ignore[overload-overlap]
        self, name: Literal["pkt-line"]
    ) -> Codec[bytes | _PktLine]: ...
    @overload
    def __getitem__(self, name: str) -> Codec: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def describe(self, name: str) -> Format: ...
    def table(self) -> list[Format]: ...
    def aliases(self) -> dict[str, str]: ...
    ascii4: Codec
    """four decimal digits: 0005hello"""
    struct_i: Codec
    """struct.pack('i', n): an int in the size and byte order of this machine"""
    netstring: Codec
    """decimal digits and a colon before, a comma after: 5:hello,"""
    lines: Codec
    """lines of text: LF ends them, CR LF is read, too"""
    nul: Codec
    """strings that end with NUL: find -print0, Varlink"""
    ndjson: Codec
    """JSON, one value a line (JSON Lines, GELF streams, Stratum); empty lines are skipped"""
    slip: Codec
    """serial lines: END after each packet, escapes inside it"""
    cobs: Codec
    """consistent-overhead byte stuffing, a zero after each packet"""
    bson: Codec
    """BSON documents: the elements, without length and final zero; raw=True gives documents"""
    avro: Codec
    """buffers of Avro RPC; an empty one ends a message"""
    protobuf: Codec
    """protobuf messages after a varint (writeDelimitedTo, protodelim)"""
    erlang1: Codec
    """{packet, 1}"""
    erlang2: Codec
    """{packet, 2}"""
    erlang4: Codec
    """{packet, 4}"""
    iso8583: Codec
    """card payment links with a binary length (in digits: ascii4)"""
    multiprocessing: Codec
    """multiprocessing.connection: an int, or -1 and 8 bytes from 2 GiB up"""
    native_messaging: Codec
    """browser extensions to their hosts; to the browser at most 1 MiB"""
    sasl_buffer: Codec
    """what each side sends after SASL negotiated a security layer (LDAP, IMAP, AMQP)"""
    kafka: Codec
    """requests and responses"""
    thrift: Codec
    """the framed transport"""
    fix: Codec
    """FIX of any version: 8=...|9=, then the body without its length; checksum verified"""
    rsocket: Codec
    """over TCP: stream id (4), type and flags (2), data"""
    zookeeper: Codec
    """requests, responses and events"""
    jdwp: Codec
    """Java debuggers, after the handshake: id (4), flags, command (2) or error (2), data"""
    grpc: Codec
    """compressed flag, then the message; inside HTTP/2 data"""
    grpc_web: Codec
    """flags (compressed 1, trailers 0x80), then the message or the trailers"""
    oncrpc: Codec
    """whole records, of one fragment or several (NFS, rpcbind)"""
    oncrpc_fragment: Codec
    """fragments of records: 0x80 for the last one or 0, then its bytes"""
    syslog: Codec
    """over TCP or TLS: reads octet counting and lines (LF, CR LF or NUL), writes counts"""
    lsp: Codec
    """language servers: Content-Length header, JSON"""
    mllp: Codec
    """HL7 messages between VT and FS CR"""
    dap: Codec
    """debug adapters: Content-Length header, JSON"""
    giop: Codec
    """CORBA: version (2), flags (bit 0: byte order), type, body; ZIOP stays in the message"""
    dcerpc: Codec
    """DCE/RPC over TCP: version (2), type, flags, data representation (4), auth size, call id"""
    dbus: Codec
    """order, type, flags, version, serial, length of the fields, fields, body"""
    postgres: Codec
    """type byte, body; after the startup"""
    postgres_ssl_answer: Codec
    """the byte that answers an SSLRequest or a GSSENCRequest: S, G or N; E begins an error"""
    postgres_startup: Codec
    """a connection's first message: StartupMessage, SSLRequest, CancelRequest"""
    mysql: Codec
    """first sequence number, payload of one packet or several"""
    mysql_packet: Codec
    """single packets: sequence number, payload; one of 0xFFFFFF bytes continues in the next"""
    mysql_compressed: Codec
    """after the login, if compression was negotiated: sequence number, size before (3), payload"""
    mongodb: Codec
    """request id, response to, opcode (4 bytes each), body"""
    cassandra: Codec
    """version, flags, stream (2), opcode, body; CQL v3 and v4"""
    cassandra_v5: Codec
    """self-contained flag (0 or 1), CRC24, payload, CRC32; CQL v5, uncompressed"""
    resp_bulk: Codec[bytes | None]
    """bulk strings of Redis; $-1 is None"""
    resp: Codec
    """Redis: a whole value as it travelled, nested too; all but the last string within 1 MiB"""
    memcached: Codec
    """the binary protocol: magic 0x80 or 0x81 and 7 more bytes, opaque (4), CAS (8), body"""
    couchbase: Codec
    """as memcached, with data types and flexible frames"""
    memcached_text: Codec
    """commands and answers: a line, and its data if it announces some; without the last CR LF"""
    tds: Codec
    """SQL Server: type, status, SPID (2), packet id, window, data"""
    drda: Codec
    """DB2, Derby: D0, format, correlation id (2), data; structures that are not continued"""
    tns: Codec
    """Oracle Net up to version 314, and CONNECT: checksum (2), type, flags, checksum (2), data"""
    tns_315: Codec
    """Oracle Net from version 315 on, after ACCEPT: type, flags, checksum (2), data"""
    elasticsearch: Codec[bytes | None]
    """the transport between nodes: header and content; None is a ping"""
    aerospike: Codec
    """version (2), type, data"""
    amqp: Codec
    """AMQP 0-9-1 (RabbitMQ), after the protocol header: type, channel (2), payload"""
    amqp1: Codec
    """AMQP 1.0, after the protocol header: data offset, type, channel (2), body"""
    amqp_header: Codec
    """what opens AMQP of every version: protocol id, major, minor, revision"""
    mqtt: Codec
    """type and flags, then the packet"""
    zmtp: Codec
    """ZeroMQ, after the greeting: flags (more 1, command 4), body"""
    zmtp_greeting: Codec
    """what opens ZMTP 3: signature (10), version (2), mechanism (20), as-server, filler (31)"""
    zmtp1: Codec
    """ZeroMQ 2: flags (more 1), body; no greeting but an empty first frame"""
    nats: Codec
    """a line, and its payload if it announces one; without the last CR LF"""
    gearman: Codec
    """magic (4: NUL and REQ or RES), type (4), arguments"""
    nsq: Codec
    """from nsqd: frame type (4: 0 response, 1 error, 2 message), data"""
    pulsar: Codec
    """size of the command (4), command, payload"""
    stomp: Codec
    """a whole frame up to its NUL; a line end between two frames is a heart-beat"""
    smpp: Codec
    """command id, status, sequence number (4 bytes each), body"""
    stun: Codec
    """over TCP: type (2), cookie (4), transaction id (12), attributes"""
    turn: Codec
    """over TCP: STUN messages, and ChannelData: channel (2), data; padded to 4 bytes"""
    diameter: Codec
    """flags, command code (3), application id and two more ids (4 each), AVPs"""
    radius: Codec
    """over TCP or TLS: code, identifier, authenticator (16), attributes"""
    ldap: Codec
    """LDAP messages: the tag 0x30, then the contents"""
    c1222: Codec
    """meters (ANSI C12.22): the tag 0x60, then the ACSE elements"""
    ber: Codec
    """ASN.1 values: identifier, contents; any definite length (SNMP over TCP)"""
    tls: Codec
    """records: type, version (2), fragment"""
    http2: Codec
    """after the preface: type, flags, stream (4), payload"""
    http2_preface: Codec
    """what a client sends before its first frame"""
    http_chunk: Codec
    """chunks without extensions; an empty one is the end, without trailer fields"""
    http1: Codec
    """HTTP/1.1: a whole request or response, chunked ones up to 1 MiB; not the answer to HEAD"""
    websocket: Codec
    """FIN and opcode, mask bit (0x80 or 0), masking key (4) if masked, payload"""
    fastcgi: Codec
    """type, request id (2), padding length, reserved, content, padding"""
    uwsgi: Codec
    """modifier1, modifier2, variables"""
    ajp13: Codec
    """servlet containers: 12 34 to the container, AB from it, then the data"""
    dns: Codec
    """over TCP and TLS"""
    kerberos: Codec
    """over TCP: AS-REQ, AS-REP, TGS-REQ, TGS-REP and KRB-ERROR"""
    openvpn: Codec
    """over TCP: opcode and key id, data"""
    pptp: Codec
    """control: message type (2: 1), cookie (4), control type (2), reserved (2), data"""
    ldp: Codec
    """label distribution: version (2: 1), LSR id (4), label space (2), messages"""
    tacacs: Codec
    """TACACS+: version, type, sequence number, flags, session id (4), body"""
    skinny: Codec
    """telephones of Cisco (SCCP): header version (4), message id (4), data"""
    rtp: Codec
    """RTP and RTCP over a stream; STUN in ICE over TCP"""
    rtsp: Codec
    """a request or a response as it travels, or interleaved data: channel (not 65 to 90), data"""
    rtmp_handshake: Codec
    """what opens RTMP, both ways: version 3, then time (4), zeros or a version (4), random"""
    sip: Codec
    """over TCP or TLS: a request or a response as it travels; CR LF: a half ping, or the answer"""
    proxy_protocol: Codec
    """version 1: the line after PROXY; version 2: version and command, family, addresses"""
    coap_tcp: Codec
    """size of the token, code, token, options and payload; the codec owns the length's 4 bits"""
    bgp: Codec
    """type, body"""
    bmp: Codec
    """BGP monitoring: type, data"""
    rpki_rtr: Codec
    """RPKI to router: version, type, session id (2), data"""
    ipfix: Codec
    """over TCP: export time, sequence number, domain id (4 each), sets"""
    openflow: Codec
    """version, type, transaction id (4), body"""
    ssh: Codec
    """after the version lines, before NEWKEYS: padding length, payload, padding"""
    ssh_version: Codec
    """what opens SSH: a line that begins with SSH-2.0-; a server may send others before it"""
    ssh_agent: Codec
    """type, contents"""
    mtproto: Codec
    """Telegram, the abridged transport, after the byte ef"""
    mtproto_intermediate: Codec
    """Telegram, the intermediate transport, after ee ee ee ee"""
    tpkt: Codec
    """ISO transport on TCP (RDP, S7, H.323): reserved byte (0), TPDU"""
    rdp: Codec
    """TPKT (03 00, then the TPDU) and fast-path PDUs (action and flags, then the updates)"""
    socks5: Codec
    """requests and replies: version 5, command or reply, 0, address type, address, port (2)"""
    socks5_greeting: Codec
    """what a client opens with: the methods that it offers"""
    socks5_method: Codec
    """the server's answer to the greeting: a method, or ff for none"""
    smb: Codec
    """direct TCP: a 0 (NetBIOS: the packet type), SMB message"""
    pkt_line: Codec[bytes | _PktLine]
    """git; 0000, 0001, 0002 are members of formats.PktLine"""
    adb: Codec
    """Android: command (4), two arguments (4 each), checksum (4), inverse of the command, data"""
    adb_host: Codec
    """requests to the adb server, and its answers after OKAY or FAIL"""
    tfrecord: Codec
    """files of TensorFlow: masked CRC of the length (4), data, masked CRC of the data (4)"""
    docker: Codec
    """attach and logs, without a terminal: stream (0 to 3), three zeros, output"""
    modbus: Codec
    """Modbus/TCP: transaction id (2), protocol id (2), unit id, PDU"""
    ads: Codec
    """Beckhoff TwinCAT (AMS/TCP): AMS header (32), data"""
    fins: Codec
    """Omron (FINS/TCP): command (4), error code (4), FINS frame"""
    mavlink: Codec
    """drones, versions 1 (fe) and 2 (fd), signed too: magic, header, payload, checksum (2)"""
    doip: Codec
    """diagnostics of cars: version, its inverse, payload type (2), payload"""
    hart_ip: Codec
    """version, message type, message id, status, sequence number (2), body"""
    c37118: Codec
    """synchrophasors: type and version, id (2), time (4), fraction (4), data; CRC verified"""
    knx: Codec
    """KNXnet/IP over TCP: service type (2), body"""
    hislip: Codec
    """instruments: message type, control code, parameter (4), payload"""
    zabbix: Codec
    """monitoring: flags (1, compressed 2, large 4), size before compression (4 or 8), data"""
    dlms: Codec
    """meters, the wrapper over TCP: version (2: 1), source (2), destination (2), APDU"""
    someip: Codec
    """cars: message id (4), request id (4), version 1, interface, type, return code, payload"""
    iec104: Codec
    """telecontrol: control field (4), ASDU"""
    dnp3: Codec
    """control, destination (2), source (2), user data; the CRCs are verified and left out"""
    enip: Codec
    """EtherNet/IP: command (2), session, status, context (8), options, data"""
    opcua: Codec
    """OPC UA: message type (3), chunk type, body"""
    dicom: Codec
    """medical images: PDU type, reserved byte, data"""
    esphome: Codec
    """the native API in plain text: type (a varint), protobuf message"""
    esphome_noise: Codec
    """the native API, encrypted: handshake and data frames"""
    x11: Codec
    """requests of little-endian clients, BIG-REQUESTS too: opcode, data byte, rest"""
    x11_setup: Codec
    """what opens a little-endian client: the sizes of two names that follow (2 each, at 6)"""
    i3_ipc: Codec
    """i3 and sway: type (4), JSON"""
    bitcoin: Codec
    """main network: command (12), checksum (4), payload"""
    bittorrent: Codec
    """after the handshake: id, payload; an empty message keeps the connection alive"""
    bittorrent_handshake: Codec
    """what opens a connection: reserved (8), info hash (20), peer id (20)"""
    minecraft: Codec
    """Java Edition without compression: packet id, data"""
    rcon: Codec
    """Source servers: id (4), type (4), text and two zeros"""
    cql: Codec
    """another name of cassandra"""
    ethernet_ip: Codec
    """another name of enip"""
    git: Codec[bytes | _PktLine]
    """another name of pkt-line"""
    h2: Codec
    """another name of http2"""
    ice_tcp: Codec
    """another name of rtp"""
    iso_tsap: Codec
    """another name of tpkt"""
    jsonrpc: Codec
    """another name of lsp"""
    mariadb: Codec
    """another name of mysql"""
    mongo: Codec
    """another name of mongodb"""
    mssql: Codec
    """another name of tds"""
    nfs: Codec
    """another name of oncrpc"""
    opc_ua: Codec
    """another name of opcua"""
    postgresql: Codec
    """another name of postgres"""
    rabbitmq: Codec
    """another name of amqp"""
    redis: Codec
    """another name of resp"""
    zeromq: Codec
    """another name of zmtp"""
    zmq: Codec
    """another name of zmtp"""

formats: Catalogue
