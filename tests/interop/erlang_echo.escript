#!/usr/bin/env escript
%% Erlang's own framing: gen_tcp with {packet, Kind}, each connection sending back what it received.
%% Prints "Kind Port" for each kind, then "ready". The kinds 1, 2 and 4 lose their header on receipt and
%% get it back on sending; the others keep it.

main(Kinds) ->
    [listen(list_to_kind(Kind)) || Kind <- Kinds],
    io:format("ready~n"),
    %% It ends with its standard input.
    io:get_line("").

list_to_kind(Text) ->
    case string:to_integer(Text) of
        {Number, ""} -> Number;
        _ -> list_to_atom(Text)
    end.

listen(Kind) ->
    Options = [binary, {packet, Kind}, {active, false}, {ip, {127, 0, 0, 1}}],
    {ok, Listener} = gen_tcp:listen(0, Options),
    {ok, Port} = inet:port(Listener),
    io:format("~p ~p~n", [Kind, Port]),
    spawn(fun() -> accept(Listener) end).

accept(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    spawn(fun() -> accept(Listener) end),
    receive after 0 -> ok end,
    echo(Socket).

echo(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Packet} ->
            ok = gen_tcp:send(Socket, Packet),
            echo(Socket);
        {error, closed} ->
            ok
    end.
